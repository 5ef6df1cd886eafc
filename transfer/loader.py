"""Each image decoded and resized once into one array of bytes; the order of training as a function of (seed, epoch)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfer.sources import Data
from zoo.download import Progress as Progress  # also for those who import it from here
from zoo.preprocess import Preprocess


@dataclass(frozen=True)
class LabelledPixels:
    """What training and evaluation run on: (N, H, W, C) uint8 pixels at the network's size, (N,) class indices."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def load_pixels(data: Data, preprocess: Preprocess, part: str, progress: Progress | None = None) -> LabelledPixels:
    """Decode and resize the images of one part.

    Raises:
        zoo.image.ImageError: an image that cannot be read; nothing is skipped silently.
    """
    indices = data.indices(part)
    pixels = np.empty((len(indices), *preprocess.size, preprocess.channels), dtype=np.uint8)

    def load(row: int) -> None:
        pixels[row] = preprocess.resize(data.read(int(indices[row])))

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(load, range(len(indices))), start=1):
            if progress is not None and (done % 16 == 0 or done == len(indices)):
                progress(f"reading {part} images", done, len(indices), "")
    return LabelledPixels(pixels, data.labels[indices])


def batches(count: int, batch: int, *, seed: int, epoch: int) -> list[NDArray[np.intp]]:
    """The index batches of one epoch: a permutation cut into ceil(count / batch) parts of nearly equal size.

    Equal sizes, because BatchNorm must not see a last batch of one image.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return np.array_split(order, -(-count // batch))
