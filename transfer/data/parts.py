"""The parts of a dataset at a network's size."""

from __future__ import annotations

from dataclasses import dataclass

from transfer.data.loader import LabelledPixels, load_pixels
from transfer.data.seen import pixel_hashes
from transfer.data.sources import Data
from transfer.data.split import TEST, TRAIN, VAL
from zoo.files.seen import Seen
from zoo.preprocess import Preprocess
from zoo.progress import Progress


@dataclass(frozen=True)
class Pixels:
    """The parts of a dataset at a network's size; a part that the data do not have is None."""

    train: LabelledPixels
    val: LabelledPixels | None
    test: LabelledPixels | None

    def parts(self) -> dict[str, LabelledPixels]:
        """Those that there are, by name."""
        named = {TRAIN: self.train, VAL: self.val, TEST: self.test}
        return {name: part for name, part in named.items() if part is not None}


def read_pixels(data: Data, preprocess: Preprocess, progress: Progress | None) -> Pixels:
    """Decode and resize all parts."""
    parts = {part: load_pixels(data, preprocess, part, progress) for part in (TRAIN, VAL, TEST)}
    return Pixels(parts[TRAIN], parts[VAL] if len(parts[VAL]) else None, parts[TEST] if len(parts[TEST]) else None)


def seen_in(data: Data, pixels: Pixels) -> Seen:
    """The images of a step, by their files' hashes and by those of their pixels as the network takes them."""
    found = Seen.of(data.hashes, data.parts.tolist())
    for part, images in ((TRAIN, pixels.train), (VAL, pixels.val), (TEST, pixels.test)):
        if images is not None:
            found |= Seen.of(pixel_hashes(images), [part] * len(images))
    return found
