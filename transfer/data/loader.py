"""Each image decoded and resized once, ever; the order of training as a function of (seed, epoch)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from transfer.data.cache import cached_array, content_key
from transfer.data.sources import Data
from zoo.errors import UsageError
from zoo.preprocess import NO_PICTURES, Preprocess
from zoo.progress import Progress  # also for those who import it from here

# Of the rule that makes pixels from a file's bytes: zoo/image.py, `Preprocess` and the `read` of each source. Who
# changes what they answer counts this up, and pixels kept by the old rule are never seen again.
PIXELS_VERSION = 3
BLOCK_BYTES = 32 << 20  # decoded at a time: what memory holds of a dataset of any size


@dataclass(frozen=True)
class LabelledPixels:
    """What training and evaluation run on.

    Attributes:
        pixels: (N, H, W, C) uint8 at the network's size, or float32 where they are prepared already; it may be a
            read-only memory map, of which a slice is read-only too (torch.from_numpy warns of that) and an index array
            makes a copy.
        labels: (N,) class indices.
        keys: what names each image in messages; () where they have no names.
        digest: equal where the pixels are, without reading them; "" where nobody has computed it.
        groups: equal for images that are alike; () where nobody has looked.
        pieces: what it was joined of, whose features may be known; () where it is one.
    """

    pixels: NDArray[Any]
    labels: NDArray[np.int64]
    keys: tuple[str, ...] = ()
    digest: str = ""
    groups: tuple[str, ...] = ()
    pieces: tuple[LabelledPixels, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def pixels_key(self) -> str:
        """Equal where the pixels are: the digest, or a hash of all of them where nobody has computed it."""
        return self.digest or hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()

    def content(self) -> str:
        """Equal where pixels and labels are."""
        return f"{self.pixels_key()} {hashlib.sha256(np.ascontiguousarray(self.labels).data).hexdigest()}"

    def take(self, indices: NDArray[np.intp]) -> LabelledPixels:
        """Some of the images, in that order; their pixels are copied."""
        keys, groups = (tuple(names[i] for i in indices) if names else () for names in (self.keys, self.groups))
        digest = content_key(self.digest, map(str, indices.tolist())) if self.digest else ""
        return LabelledPixels(self.pixels[indices], self.labels[indices], keys, digest, groups)


def joined(*pieces: LabelledPixels) -> LabelledPixels:
    """The images of several parts as one, in that order; names and groups where all of them have some."""
    keys, groups = ([piece.keys for piece in pieces], [piece.groups for piece in pieces])
    return LabelledPixels(
        np.concatenate([piece.pixels for piece in pieces]),
        np.concatenate([piece.labels for piece in pieces]),
        tuple(chain.from_iterable(keys)) if all(keys) else (),
        content_key("joined", (piece.pixels_key() for piece in pieces)),
        tuple(chain.from_iterable(groups)) if all(groups) else (),
        pieces,
    )


def load_pixels(data: Data, preprocess: Preprocess, part: str, progress: Progress | None = None) -> LabelledPixels:
    """Decode and resize the images of one part, or map what an earlier run kept of the same images at the same size.

    What is kept goes by the images' hashes, never by names or times: a renamed or copied folder is not decoded again,
    and a changed image is.

    Raises:
        zoo.image.ImageError: an image that cannot be read; nothing is skipped silently.
        UsageError: pictures for a network that takes prepared tensors, or the other way round, or of another size.
    """
    indices = data.indices(part)
    keys, groups = (tuple(names[i] for i in indices) if names else () for names in (data.keys, data.groups))
    if data.prepared is not None or preprocess.is_prepared:
        return LabelledPixels(_prepared(data, preprocess)[indices], data.labels[indices], keys, groups=groups)
    shape = (len(indices), *preprocess.size, preprocess.channels)
    digest = _digest(data, indices, preprocess)

    def make() -> Iterator[NDArray[np.uint8]]:
        return _decode(data, indices, preprocess, f"reading {part} images", progress)

    pixels = cached_array("pixels", digest, shape=shape, dtype=np.uint8, make=make)
    return LabelledPixels(pixels, data.labels[indices], keys, digest, groups)


def _prepared(data: Data, preprocess: Preprocess) -> NDArray[np.float32]:
    if data.prepared is None:
        raise UsageError(f"{data.name}: {NO_PICTURES}")
    if not preprocess.is_prepared:
        raise UsageError(f"{data.name} holds prepared tensors, and this model prepares pictures itself: give it bytes")
    given, wanted = data.prepared.shape[1:], (*preprocess.size, preprocess.channels)
    if given != wanted:
        raise UsageError(f"{data.name} has images of {given} (H, W, C), the model takes {wanted}")
    return data.prepared


def _digest(data: Data, indices: NDArray[np.intp], preprocess: Preprocess) -> str:
    """Hash all that the pixels depend on; mean and standard deviation come later and change none."""
    p = preprocess
    rule = (p.size, p.resize_to, p.mode, p.interpolation, p.antialias, p.background, p.channels)
    # another Pillow may bring another JPEG decoder
    return content_key(f"{PIXELS_VERSION} {PIL.__version__} {rule}", (data.hashes[i] for i in indices))


def _decode(
    data: Data, indices: NDArray[np.intp], preprocess: Preprocess, title: str, progress: Progress | None
) -> Iterator[NDArray[np.uint8]]:
    """Blocks of (b, H, W, C) pixels, in order."""
    shape = (*preprocess.size, preprocess.channels)
    block = max(16, BLOCK_BYTES // int(np.prod(shape)))

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(indices), block):
            chosen = indices[start : start + block].tolist()
            pixels = np.empty((len(chosen), *shape), dtype=np.uint8)
            for row, image in enumerate(pool.map(data.resized, chosen, repeat(preprocess))):
                pixels[row] = image
                done = start + row + 1
                if progress is not None and (done % 16 == 0 or done == len(indices)):
                    progress(title, done, len(indices), "")
            yield pixels


def batches(count: int, batch: int, *, seed: int, epoch: int) -> list[NDArray[np.intp]]:
    """The index batches of one epoch: a permutation cut into ceil(count / batch) parts of nearly equal size.

    Equal sizes, because BatchNorm must not see a last batch of one image.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.array_split(order, -(-count // batch))
