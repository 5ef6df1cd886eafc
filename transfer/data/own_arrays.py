"""Images that are in memory, as arrays or as a loader's batches, as data that every step takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.data.dataset import divide
from transfer.data.sources import Data
from transfer.data.split import TEST, TRAIN, VAL
from zoo.errors import DataError

Pair = tuple[Any, Any]  # images and labels, as arrays or tensors
Part = Pair | Iterable[Pair]
WANTED = "wanted (images, labels), or an iterable of such batches, as a DataLoader is"


def from_arrays(
    train: Part,
    *,
    val: Part | float | None = None,
    test: Part | float | None = None,
    classes: Sequence[str] | None = None,
    mirror: bool = False,
    seed: int = 0,
    name: str = "arrays",
) -> Data:
    """Labelled images in memory, for every step: `prune(model, data=from_arrays((images, labels)), ...)`.

    Batches are gone through once and kept, so that a loader should not augment by chance: the recipes do that, and they
    leave the colours of prepared images alone. Images
    are float (N, C, H, W), prepared as the network takes them, or uint8 pixels (N, H, W, C) or (N, C, H, W), C 1 or 3,
    for a model that says how pixels are prepared. Labels are (N,) whole numbers from 0.

    Args:
        train: the images to train on, and to split from.
        val, test: these parts themselves, or shares to split off; see `open_data` for what is done by default.
        classes: names of the labels 0, 1, ...; by default their numbers.
        mirror: whether a mirrored image is still of its class.
        seed: of the split.

    Raises:
        DataError: images or labels of other shapes, types or numbers; a class too small to split.
        UsageError: shares that leave nothing to train on.
    """
    asked = {part: value for part, value in ((VAL, val), (TEST, test)) if value is not None}
    shares = {part: float(value) for part, value in asked.items() if isinstance(value, Real)}  # type: ignore[arg-type]
    given = {part: value for part, value in asked.items() if part not in shares}
    read = {part: _read(value, part) for part, value in {TRAIN if given else "": train, **given}.items()}
    images = _joined([pair[0] for pair in read.values()])
    labels = np.concatenate([pair[1] for pair in read.values()])
    parts = np.concatenate([np.full(len(pair[1]), part, dtype="<U5") for part, pair in read.items()])
    names = tuple(map(str, range(int(labels.max()) + 1) if classes is None else classes))
    if len(set(names)) < len(names):
        raise DataError(f"{name}: classes= names {len(names)} classes, some of them twice")
    if labels.max() >= len(names):
        raise DataError(f"{name}: label {labels.max()}, and classes= names {len(names)}")
    if len(names) < 2:
        raise DataError(f"{name}: one class; wanted labels of at least two")
    prepared = images if images.dtype == np.float32 else None
    data = Data(
        name=name,
        classes=names,
        keys=tuple(f"{name}/{number}" for number in range(len(labels))),
        labels=labels,
        hashes=tuple(hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for image in images),
        parts=parts,
        read=lambda index, least=None: _shown(images[index]),
        mirror=mirror,
        named=tuple(sorted(set(read) - {""})),
        prepared=prepared,
    )
    if VAL in given and not shares.get(TEST):
        return replace(data, groups=data.hashes)  # nothing is left to divide
    return divide(data, data.hashes, shares.get(VAL), shares.get(TEST), seed=seed)


def _read(given: Any, part: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """One part's images (N, H, W, C) and labels."""
    said = f"the {part or TRAIN} images"
    try:
        batches = [given] if _is_pair(given) else list(given)
    except TypeError:
        raise DataError(f"{said}: a {type(given).__name__}; {WANTED}") from None
    if not batches or not all(map(_is_pair, batches)):
        raise DataError(f"{said}: {WANTED}")
    images = _joined([_images(batch[0], said) for batch in batches])
    labels = np.concatenate([_labels(batch[1], len(batch[0]), said) for batch in batches])
    return images, labels


def _is_pair(given: Any) -> bool:
    if not isinstance(given, tuple | list) or len(given) != 2:
        return False
    return len(getattr(given[0], "shape", ())) > 2


def _images(given: Any, said: str) -> NDArray[Any]:
    """(N, H, W, C), float32 or uint8."""
    array = _array(given)
    if array.ndim != 4 or not len(array):
        raise DataError(f"{said} have the shape {array.shape}; wanted (N, C, H, W), or (N, H, W, C) of bytes")
    if array.dtype.kind == "f":
        array = array.astype(np.float32).transpose(0, 2, 3, 1)
        if not np.isfinite(array).all():
            raise DataError(f"{said} hold numbers that are not finite")
    elif array.dtype == np.uint8:
        array = array if array.shape[3] in (1, 3) else array.transpose(0, 2, 3, 1)
        if array.shape[3] not in (1, 3):
            raise DataError(f"{said} have {array.shape[3]} channels of bytes; wanted 1 or 3")
    else:
        raise DataError(f"{said} are {array.dtype}; wanted floats as the network takes them, or bytes (uint8)")
    return np.ascontiguousarray(array)


def _labels(given: Any, count: int, said: str) -> NDArray[np.int64]:
    labels = _array(given)
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise DataError(
            f"the labels of {said} are {labels.dtype} {labels.shape}; wanted ({count},) whole numbers from 0"
        )
    return labels.astype(np.int64)


def _array(given: Any) -> NDArray[Any]:
    if hasattr(given, "detach"):
        given = given.detach().cpu()
        given = given.float() if given.is_floating_point() else given  # NumPy has no bfloat16
    return np.asarray(given)


def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    kinds = {(array.dtype, array.shape[1:]) for array in arrays}
    if len(kinds) > 1:
        said = " and ".join(f"{dtype} {shape}" for dtype, shape in sorted(kinds, key=str))
        raise DataError(f"images of {said}: wanted all of one type and size")
    return np.concatenate(arrays)


def _shown(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB, to look at where it is no picture."""
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = np.round((image - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
