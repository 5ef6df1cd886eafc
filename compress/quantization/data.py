"""Which images calibrate, and whether they can say how accurate the model is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transfer.data.dataset import class_names_of, open_unlabelled
from transfer.data.fitted_data import open_for, unchanged
from transfer.data.sources import Data
from zoo.errors import UsageError
from zoo.files.model_directory import ModelConfig

NAMED = 3  # classes of either side, where they differ


@dataclass(frozen=True)
class Calibration:
    """Images to calibrate with.

    Attributes:
        data: with the parts that are measured on, where the labels are the model's; else some images alone.
        unmeasured: why accuracies cannot be measured; None where they can.
    """

    data: Data
    unmeasured: str | None = None


def open_calibration(
    config: ModelConfig, source: str | Path | Data, *, max_drop: float | None = None, most: int, seed: int = 0
) -> Calibration:
    """Open a dataset of the model's classes as its fit did, and any others for their images alone.

    Args:
        most: images that are read where their labels are of no use.

    Raises:
        UsageError: nothing of that name; an accuracy is to be held that cannot be measured.
        DataError: no images, or not those that the model was fitted to.
    """
    if isinstance(source, Data):
        return Calibration(open_for(config, source))
    fitted = unchanged(config, source)
    if fitted is not None and fitted.classes == config.classes:
        return Calibration(fitted)
    classes = class_names_of(source, config.classes or ())
    if config.classes is not None and set(classes) == set(config.classes):
        return Calibration(open_for(config, source))
    theirs = f"has {_said(classes)}" if classes else "has no classes"
    ours = "classes that nobody has named" if config.classes is None else _said(config.classes)
    why = f"{source} {theirs}, the model {ours}"
    if max_drop is not None:
        raise UsageError(
            f"--max-drop {max_drop:g} needs an accuracy, and {why}: leave it out, or name labelled images of the "
            "model's classes"
        )
    return Calibration(open_unlabelled(source, most=most, seed=seed), why)


def _said(classes: tuple[str, ...]) -> str:
    more = ", ..." if len(classes) > NAMED else ""
    names = ", ".join(name.partition(",")[0] for name in classes[:NAMED])  # ImageNet's are lists of synonyms
    return f"{len(classes)} class{'es' if len(classes) > 1 else ''} ({names}{more})"
