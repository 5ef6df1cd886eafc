"""Which images a model is measured on: those that it has not met, as far as it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transfer.data.dataset import open_labelled, some
from transfer.data.fitted_data import as_known, given_to_fit, unchanged
from transfer.data.loader import LabelledPixels, load_pixels
from transfer.data.seen import pixel_hashes
from transfer.data.sources import Data
from transfer.data.split import TEST, TRAIN, VAL
from zoo.files.model_directory import ModelConfig
from zoo.files.seen import FOLD, Seen
from zoo.preprocess import Preprocess
from zoo.progress import Progress

ALL, HELD_OUT = "all", "held out"


@dataclass(frozen=True)
class Met:
    """How many images a model had been trained on, or calibrated, and how many it had been chosen by."""

    trained: int
    chose: int

    @classmethod
    def among(cls, was: Sequence[str | None]) -> Met:
        return cls(was.count(TRAIN) + was.count(FOLD), was.count(VAL))


@dataclass(frozen=True)
class Measured:
    """Images to measure on.

    Attributes:
        part: "test", "val" where the model was chosen by all that are left, "all" where nothing is left out.
        left_out, included: of the images that were given, which the model had met; None where nobody knows.
        held_out: those that were held out until the model had been chosen, and trained on then.
    """

    data: Data
    part: str
    pixels: LabelledPixels
    left_out: Met | None
    included: Met | None
    held_out: Data | None = None

    def by_judge(self, preprocess: Preprocess, progress: Progress | None) -> Measured:
        """The images that were held out, for the model's judge."""
        assert self.held_out is not None
        pixels = load_pixels(self.held_out, preprocess, VAL, progress)
        return replace(self, data=self.held_out, part=HELD_OUT, pixels=pixels, included=Met(0, 0))


def measured_images(
    config: ModelConfig,
    source: str | Path | Data,
    classes: tuple[str, ...],
    *,
    all: bool = False,
    layout: str = "auto",
    known_only: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """The test part of the model's own data, and of others the images that are new to it.

    Args:
        config: of the model, with its lineage and what it has seen.
        all: every image, new or not.
        layout, known_only: see `open_labelled`.

    Raises:
        UsageError, DataError: see `open_labelled` and `reopen`.
    """
    seen = config.seen
    if isinstance(source, Data):
        return _in_memory(as_known(source, classes), config, all=all, progress=progress)
    fitted = unchanged(config, source)
    if fitted is not None and not all:
        return _own(fitted, config, progress)
    if fitted is not None and seen is None:
        seen = Seen.of(fitted.hashes, fitted.parts.tolist())
    given = given_to_fit(config, source)
    layout = given.layout if layout == "auto" else layout
    data = open_labelled(source, classes, val=given.val, test=given.test, layout=layout, known_only=known_only)
    if seen is None:
        pixels = load_pixels(data, config.preprocess, TEST, progress)
        return Measured(data, ALL if all else TEST, pixels, None, None)
    if all:
        pixels = load_pixels(data, config.preprocess, TEST, progress)
        was = [seen.part_of(*both) for both in zip(data.hashes, pixel_hashes(pixels), strict=True)]
        return Measured(data, ALL, pixels, Met(0, 0), Met.among(was))
    return _new_ones(data, seen, config, progress)


def _in_memory(data: Data, config: ModelConfig, *, all: bool, progress: Progress | None) -> Measured:
    """Take the held-out part of data that a step of the model had; of others the images that are new to it."""
    if not all and any((step.get("data") or {}).get("fingerprint") == data.fingerprint() for step in config.lineage):
        return _own(data, config, progress)
    whole = replace(data, parts=np.full(len(data.keys), TEST, dtype="<U5"))
    if all or config.seen is None:
        return Measured(whole, ALL if all else TEST, load_pixels(whole, config.preprocess, TEST, progress), None, None)
    return _new_ones(whole, config.seen, config, progress)


def _own(fitted: Data, config: ModelConfig, progress: Progress | None) -> Measured:
    """The test part of the fit, else its validation part, without what a later step trained on."""
    held_out = some(fitted, fitted.indices(VAL), VAL) if fitted.refit and len(fitted.indices(VAL)) else None
    fitted = fitted.whole() if fitted.refit else fitted
    part = next((part for part in (TEST, VAL) if len(fitted.indices(part))), TEST)
    indices, sizes = fitted.indices(part), fitted.sizes()
    was: list[str | None] = [None] * len(indices)
    if config.seen is not None:
        own = {fitted.hashes[i] for i in np.flatnonzero(fitted.parts != part)}  # a copy in two parts is the data's way
        found = [config.seen.part_of(digest) for digest in (fitted.hashes[i] for i in indices)]
        was = [None if fitted.hashes[i] in own else now for i, now in zip(indices, found, strict=True)]
    kept = [i for i, now in zip(indices.tolist(), was, strict=True) if now in (None, TEST, part)]
    data = fitted if len(kept) == len(indices) else some(fitted, np.array(kept, dtype=np.intp), part)
    later = Met.among([now for now in was if now not in (None, TEST, part)])
    met = Met(sizes[TRAIN] + later.trained, (sizes[VAL] if part != VAL else 0) + later.chose)
    included = Met(0, len(kept) if part == VAL else 0)
    return Measured(data, part, load_pixels(data, config.preprocess, part, progress), met, included, held_out)


def _new_ones(data: Data, seen: Seen, config: ModelConfig, progress: Progress | None) -> Measured:
    """Find new images by their files first, so that what is known by them is not even decoded, then by their pixels."""
    was = [seen.part_of(digest) for digest in data.hashes]
    rest = np.flatnonzero([now in (None, TEST) for now in was])
    chosen, part = some(data, rest, TEST), TEST
    pixels = load_pixels(chosen, config.preprocess, TEST, progress)
    for i, digest in zip(rest.tolist(), pixel_hashes(pixels), strict=True):
        was[i] = seen.part_of(data.hashes[i], digest)
    new = np.flatnonzero([now in (None, TEST) for now in was])
    if not len(new):
        new, part = np.flatnonzero([now == VAL for now in was]), VAL
    if len(new) != len(rest) or part == VAL:
        chosen = some(data, new, part)
        pixels = load_pixels(chosen, config.preprocess, part, progress)
    met, included = Met.among(was), Met(0, len(new) if part == VAL else 0)
    folds = np.flatnonzero([now == FOLD for now in was])
    held_out = some(data, folds, VAL) if len(folds) else None
    return Measured(chosen, part, pixels, Met(met.trained, met.chose - included.chose), included, held_out)
