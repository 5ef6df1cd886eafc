"""The parts of a dataset at a network's size."""

from __future__ import annotations

from dataclasses import dataclass

from transfer.data.loader import LabelledPixels, joined, load_pixels
from transfer.data.seen import pixel_hashes
from transfer.data.sources import Data
from transfer.data.split import TEST, TRAIN, VAL
from zoo.files.seen import FOLD, Seen
from zoo.preprocess import Preprocess
from zoo.progress import Progress


@dataclass(frozen=True)
class Pixels:
    """The parts of a dataset at a network's size; a part that the data do not have is None."""

    train: LabelledPixels
    val: LabelledPixels | None
    test: LabelledPixels | None

    def whole(self) -> Pixels:
        """With the validation images among those to train on; see `Data.refit`."""
        return self if self.val is None else Pixels(joined(self.train, self.val), None, self.test)

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
    part_of = {TRAIN: TRAIN, VAL: FOLD if data.refit else VAL, TEST: TEST}
    found = Seen.of(data.hashes, [part_of[part] for part in data.parts.tolist()])
    for part, images in pixels.parts().items():
        found |= Seen.of(pixel_hashes(images), [part_of[part]] * len(images))
    return found
