"""What a model's answers on labelled images are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.data import open_labelled, reopen
from transfer.loader import LabelledPixels, Progress, load_pixels
from transfer.sources import Data
from transfer.split import TEST, VAL
from transfer.statistics import wilson
from zoo.artifact import is_model_directory, read_config
from zoo.errors import DataError, UsageError
from zoo.predictor import BATCH, Predictor, open_predictor


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a model on n images.

    Attributes:
        labels, predictions: (n,) class indices.
        confusion: (K, K) counts, rows true classes, columns predicted ones.
    """

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confusion: NDArray[np.int64]

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.equal(self.labels, self.predictions)

    @property
    def top1(self) -> float:
        return float(self.correct.mean())

    @property
    def top1_ci(self) -> tuple[float, float]:
        """95% Wilson interval."""
        return wilson(int(self.correct.sum()), self.n)

    def per_class(self, classes: tuple[str, ...]) -> dict[str, float | None]:
        """Recall of each class; None where it has no images."""
        totals = self.confusion.sum(axis=1)
        return {
            name: None if totals[i] == 0 else round(float(self.confusion[i, i] / totals[i]), 4)
            for i, name in enumerate(classes)
        }

    def record(self) -> dict[str, Any]:
        """What a lineage record keeps; `correct`, one character an image, allows paired comparisons later."""
        return {
            "top1": round(self.top1, 6),
            "top1_ci": [round(bound, 6) for bound in self.top1_ci],
            "n": self.n,
            "correct": "".join("1" if right else "0" for right in self.correct),
        }


def evaluate_pixels(
    predictor: Predictor, data: LabelledPixels, classes: int, *, progress: Progress | None = None
) -> Evaluation:
    """Run the model over all images of `data`."""
    predictions = np.empty(len(data), dtype=np.int64)
    for start in range(0, len(data), BATCH):
        part = predictor.logits(data.pixels[start : start + BATCH])
        predictions[start : start + BATCH] = part.argmax(axis=1)
        if progress is not None:
            progress("evaluating", min(start + BATCH, len(data)), len(data), "")
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (data.labels, predictions), 1)
    return Evaluation(data.labels, predictions, confusion)


def evaluate(source: str | Path, data: str | Path, *, progress: Progress | None = None) -> tuple[Evaluation, Data, str]:
    """`slimzoo eval`: a model directory or exported ONNX file on labelled images.

    On the data that the model was fitted to, its own test part is used (the validation part where there is none); other
    data are used whole.

    Returns:
        The evaluation, the data, and the part that was used.

    Raises:
        UsageError: the model's classes are not known.
        DataError: the model was trained on all of these images.
    """
    predictor = open_predictor(source)
    if predictor.classes is None:
        raise UsageError(
            f"{source} has no class names, so its answers cannot be compared with labels; `slimzoo fit` first"
        )
    opened, part = _held_out(Path(source), data, predictor.classes)
    pixels = load_pixels(opened, predictor.preprocess, part, progress)
    return evaluate_pixels(predictor, pixels, len(predictor.classes), progress=progress), opened, part


def _held_out(source: Path, data: str | Path, classes: tuple[str, ...]) -> tuple[Data, str]:
    directory = source.parent if source.suffix == ".onnx" else source
    steps = read_config(directory).lineage if is_model_directory(directory) else []
    fitted = reopen(steps, str(data))
    if fitted is not None:
        for part in (TEST, VAL):
            if len(fitted.indices(part)):
                return fitted, part
        raise DataError(f"{source} was trained on all images of {data}; name others, which it has not seen")
    return open_labelled(data, classes), TEST
