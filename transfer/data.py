"""What a model is trained on, chosen by and tested on: the parts of a dataset, and the same parts again later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from transfer.sources import BUILT_IN, Data, open_source
from transfer.split import TEST, TRAIN, VAL, stratified_split
from zoo.errors import DataError, UsageError, did_you_mean


def open_data(
    source: str | Path, *, val: float | str | None = None, test: float | str | None = None, seed: int = 0
) -> Data:
    """Open a dataset and decide what is trained on, chosen by, and tested on.

    Args:
        source: see transfer.sources.
        val, test: a share to split off (0 for none), or another folder or file that is this part. By default the parts
            that the source itself names, else 20% each.
        seed: of the split. Built-in data ignore it: their split is fixed (seed 0, 60/20/20).

    Raises:
        UsageError: nothing of that name; the near names are offered.
        DataError: no images, one class, a class too small to split, an unknown class in the test part.
    """
    if str(source) in BUILT_IN:
        return _split(open_source(source), val=_share(val), test=_share(test), seed=0)
    data = open_source(source)
    if len(data.classes) < 2:
        raise DataError(f"{source}: one class, {data.classes[0]!r}; wanted at least two folders of images, one a class")
    extra = [(part, open_source(str(value))) for part, value in ((VAL, val), (TEST, test)) if _is_source(value)]
    for part, other in extra:
        data = _append(data, other, part)
    shares = {VAL: _share(val), TEST: _share(test)}
    return _split(data, val=shares[VAL], test=shares[TEST], seed=seed)


def open_labelled(source: str | Path, classes: Sequence[str]) -> Data:
    """Open a dataset whole, as one "test" part, its labels numbered as in `classes`: new data for a finished model.

    Raises:
        DataError: a class that the model does not know.
    """
    return _as_part(open_source(source), tuple(classes), TEST)


def reopen(lineage: Sequence[dict[str, Any]], source: str | Path | None = None) -> Data | None:
    """The data that a model was fitted to, with the same parts; None if there was no fit, or they cannot be opened.

    Args:
        lineage: the model's records.
        source: None for the data of the last fit; otherwise only a fit to this source counts.

    Raises:
        DataError: `source` is what the model was fitted to, and its images are no longer the same.
    """
    for step in reversed(lineage):
        fitted = step["arguments"]
        if step["verb"] == "fit" and (source is None or _same_source(str(source), fitted["data"])):
            try:
                data = open_data(fitted["data"], val=fitted["val"], test=fitted["test"], seed=fitted["seed"])
            except (UsageError, DataError):
                return None
            if data.fingerprint() == step["data"]["fingerprint"]:
                return data
            if source is None:
                return None
            raise DataError(
                f"{source} has changed since the model was fitted to it: another split would test on images that were "
                "trained on; bring the images back, or fit again"
            )
    return None


def open_for(lineage: Sequence[dict[str, Any]], source: str | Path, classes: Sequence[str] | None) -> Data:
    """Data to go on training, calibrating and measuring a fitted model with: same classes, same parts as in its fit.

    Raises:
        UsageError: the data have other classes than the model.
    """
    data = reopen(lineage, str(source)) or open_data(source)
    if classes is None or data.classes != tuple(classes):
        known = "none that it names" if classes is None else f"{len(classes)}: {', '.join(list(classes)[:4])}"
        raise UsageError(
            f"{source} has {len(data.classes)} classes ({', '.join(data.classes[:4])}), the model has {known}; "
            f"`slimzoo fit {source}` first"
        )
    return data


def _same_source(one: str, other: str) -> bool:
    return one == other or (
        one not in BUILT_IN and other not in BUILT_IN and os.path.realpath(one) == os.path.realpath(other)
    )


def _is_source(value: float | str | None) -> bool:
    return isinstance(value, str) and _number(value) is None


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _share(value: float | str | None) -> float | None:
    return _number(value) if isinstance(value, str) else value


def _as_part(data: Data, classes: tuple[str, ...], part: str) -> Data:
    """All of `data` as one part, its labels renumbered by name to the order of `classes`."""
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        near = did_you_mean(unknown[0], classes, f"known: {', '.join(classes[:8])}")
        raise DataError(f"{data.name}: class {unknown[0]!r} is not among the training classes; {near}")
    number = np.array([classes.index(name) for name in data.classes])
    parts = np.full(len(data.keys), part, dtype="<U5")
    return replace(data, classes=classes, labels=number[data.labels], parts=parts)


def _append(data: Data, other: Data, part: str) -> Data:
    """`data` with all of `other` as one more part, classes matched by name."""
    other = _as_part(other, data.classes, part)
    size = len(data.keys)
    first, second = data.read, other.read
    return replace(
        data,
        keys=data.keys + other.keys,
        labels=np.concatenate([data.labels, other.labels]),
        hashes=data.hashes + other.hashes,
        parts=np.concatenate([data.parts, other.parts]),
        read=lambda index: first(index) if index < size else second(index - size),
    )


def _split(data: Data, *, val: float | None, test: float | None, seed: int) -> Data:
    """Fill in the parts that the source leaves open; a part that the source names is kept."""
    given = {part for part in (TRAIN, VAL, TEST) if (data.parts == part).any()}
    named = bool(given & {TRAIN})  # the source said what is trained on: nothing but validation is taken from it
    default_test = 0.0 if named or TEST in given else 0.2
    shares = {
        VAL: 0.0 if VAL in given else (0.2 if val is None else val),
        TEST: 0.0 if TEST in given else (default_test if test is None else test),
    }
    free = np.flatnonzero((data.parts == "") | (data.parts == TRAIN))
    if not len(free):
        raise DataError(f"{data.name}: no training images; all are of the parts {', '.join(sorted(given))}")
    parts = data.parts.copy()
    parts[free] = stratified_split(
        data.labels[free].tolist(),
        val=shares[VAL],
        test=shares[TEST],
        seed=seed,
        hashes=[data.hashes[i] for i in free],
        classes=data.classes,
    )
    return replace(data, parts=parts)
