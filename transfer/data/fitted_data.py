"""The data of a fit again: the same images in the same parts, for the steps after it, wherever they lie now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.data.dataset import VAL_SHARE, gather, open_data, renumbered, share_of
from transfer.data.seen import divided_as_seen
from transfer.data.sources import Data, index_listing
from transfer.data.split import TRAIN
from zoo.errors import DataError, UsageError, first_line
from zoo.files.model_directory import ModelConfig
from zoo.lineage import BUILT_IN


def reopen(lineage: Sequence[dict[str, Any]], source: str | Path | None = None) -> Data | None:
    """The data that a model was fitted to, with the same parts; None if there was no fit, or they cannot be opened.

    Args:
        lineage: the model's records.
        source: None for the data of the last fit; otherwise only a fit to this source counts, or to the same images
            where they were before.

    Raises:
        DataError: `source` is what the model was fitted to, and its images, or those that it was validated or tested
            on, are no longer the same.
    """
    for step in reversed(lineage):
        fitted = step.get("arguments") or {}
        if step.get("verb") != "fit" or fitted.get("data") is None:
            continue
        if source is not None and not _same_source(str(source), fitted["data"]):
            moved = _moved(step, source)
            if moved is not None:
                return moved
        else:
            try:
                data = open_data(fitted["data"], **_division(fitted))
            except (UsageError, DataError) as error:
                if source is None:
                    return None
                raise DataError(
                    f"{source} is what the model was fitted to, and it cannot be divided as it was then: "
                    f"{first_line(error)}"
                ) from error
            if data.fingerprint() == step["data"]["fingerprint"]:
                return data
            if source is None:
                return None
            raise DataError(
                f"{source} has changed since the model was fitted to it: another split would test on images that were "
                "trained on; bring the images back, or fit again"
            )
    return None


def reopen_seen(config: ModelConfig, source: str | Path) -> Data | None:
    """`reopen`; where the images have changed since, those that the model remembers have the parts that they had.

    Raises:
        DataError: they have changed, and the model is from before it was kept which ones it saw; nothing to train on.
    """
    fitted = unchanged(config, source)
    if fitted is not None or config.seen is None:
        return fitted
    given = given_to_fit(config, source)
    known = config.classes or ()
    index = index_listing(gather(source, val=given.val, test=given.test, layout=given.layout, known=known))
    val, test = (VAL_SHARE if given.val is None else share_of(given.val) or 0.0), share_of(given.test) or 0.0
    data = divided_as_seen(index, config.seen, config.preprocess, val=val, test=test, seed=0)
    if data is not None and not len(data.indices(TRAIN)):
        raise DataError(
            f"{source}: the model was tested on all of these images, or chosen by them, so that none is left to train "
            "on; add others"
        )
    return data


def unchanged(config: ModelConfig, source: str | Path) -> Data | None:
    """`reopen`; None too where the images have changed and the model remembers which ones it saw."""
    try:
        return reopen(config.lineage, str(source))
    except DataError:
        if config.seen is None:
            raise
        return None


@dataclass(frozen=True)
class Given:
    """What a fit was given to divide its data by."""

    val: float | str | None = None
    test: float | str | None = None
    layout: str = "auto"


def given_to_fit(config: ModelConfig, source: str | Path) -> Given:
    """What the last fit to this source was given, but for sources that are gone."""
    for step in reversed(config.lineage):
        fitted = step["arguments"]
        if step["verb"] == "fit" and _same_source(str(source), fitted["data"]):
            val, test = (value if _is_there(value) else None for value in (fitted["val"], fitted["test"]))
            return Given(val, test, fitted.get("layout", "auto"))
    return Given()


def _is_there(value: float | str | None) -> bool:
    """A share is; a path or name of a source may not be."""
    return not isinstance(value, str) or share_of(value) is not None or value in BUILT_IN or os.path.exists(value)


def open_for(config: ModelConfig, source: str | Path | Data) -> Data:
    """Data to go on training, calibrating and measuring a fitted model with: same classes, same parts as in its fit.

    Images that the model remembers keep their parts in other sources too.

    Raises:
        UsageError: the data have other classes than the model.
    """
    classes = config.classes
    if isinstance(source, Data):
        return as_known(source, classes)
    data = reopen_seen(config, source) or open_data(source, known=classes or ())
    if classes is not None and data.classes != classes and set(data.classes) == set(classes):
        data = renumbered(data, classes)
    if classes is None or data.classes != classes:
        known = "none that it names" if classes is None else f"{len(classes)}: {', '.join(list(classes)[:4])}"
        raise UsageError(
            f"{source} has {len(data.classes)} classes ({', '.join(data.classes[:4])}), the model has {known}; "
            + ("name them with --classes FILE, or " if classes is None else "")
            + f"`slimzoo fit {source}` first"
        )
    return data


def as_known(data: Data, classes: tuple[str, ...] | None) -> Data:
    """Number the labels as in the model's classes.

    Raises:
        UsageError: a class that the model does not know.
    """
    if strange := set(data.classes) - set(classes or ()):
        known = "none that it names" if classes is None else ", ".join(classes[:8])
        raise UsageError(f"{data.name} has the class {min(strange)!r}, the model knows {known}")
    return data if data.classes == classes else renumbered(data, classes or ())


def _same_source(one: str, other: str) -> bool:
    return one == other or (
        one not in BUILT_IN and other not in BUILT_IN and os.path.realpath(one) == os.path.realpath(other)
    )


def _moved(step: dict[str, Any], source: str | Path) -> Data | None:
    """The source divided as in that fit, if it holds the very images of it, only in another place."""
    fitted, record = step["arguments"], step["data"]
    try:
        division = _division(fitted)
        seed = division.pop("seed", 0)
        listing = gather(source, **division)
        if len(listing.items) != sum(record["sizes"].values()):
            return None
        data = open_data(source, **division, seed=seed)
    except (UsageError, DataError):
        return None
    return data if data.fingerprint() == record["fingerprint"] else None


def _division(fitted: dict[str, Any]) -> dict[str, Any]:
    """Choose, of a fit's arguments, those that decide which image is in which part."""
    return {name: fitted[name] for name in ("val", "test", "seed", "layout") if name in fitted}
