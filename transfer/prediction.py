"""`slimzoo predict`: labels and scores for image files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from zoo.errors import SlimzooError
from zoo.files.predictor import Predictor, open_predictor
from zoo.image import ImageError, load_image


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first, with softmax scores."""

    path: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Unread:
    """A file that is no readable image."""

    path: str
    error: ImageError


def predict(source: str | Path, images: Sequence[str | Path], *, top: int = 5) -> list[Prediction]:
    """Classify image files with a model directory, an exported ONNX file, "timm:NAME" or "torchvision:NAME".

    Raises:
        zoo.image.ImageError: a file that is not a readable image; it is named, and nothing is predicted.
    """
    answers = []
    for answer in predictions(open_predictor(source), images, top=top):
        if isinstance(answer, Unread):
            raise answer.error
        answers.append(answer)
    return answers


def predictions(predictor: Predictor, images: Iterable[str | Path], *, top: int) -> Iterator[Prediction | Unread]:
    """The answer to each image as soon as it is made; a file that cannot be read is told of and takes no other along.

    Raises:
        SlimzooError: logits that are not finite numbers.
    """
    preprocess = predictor.preprocess
    for path in images:
        try:
            pixels = load_image(path, background=preprocess.background, least=preprocess.least)
        except ImageError as error:
            yield Unread(str(path), error)
            continue
        if pixels.shape[:2] == preprocess.size:  # else they would be taken for what is cut out already
            pixels = preprocess.resize(pixels)
        logits = predictor.logits(pixels[None])[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise SlimzooError(
                f"the model answers {path} with numbers that are not finite: its training diverged, or its precision "
                "is too low; go back to the model before"
            )
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        names = predictor.classes or tuple(f"class {i}" for i in range(len(scores)))
        best = np.argsort(-scores)[:top]
        yield Prediction(str(path), tuple((names[i], round(float(scores[i]), 4)) for i in best))


class PredictionTable:
    """A CSV file with a line for each image: path, class and score of the best, of the second, ..., the error."""

    def __init__(self, file: IO[str], *, top: int) -> None:
        self._writer, self._top = csv.writer(file), top
        more = [name for i in range(2, top + 1) for name in (f"predicted_{i}", f"confidence_{i}")]
        self._writer.writerow(["path", "predicted", "confidence", *more, "error"])

    def write(self, answer: Prediction | Unread) -> None:
        if isinstance(answer, Unread):
            self._writer.writerow([answer.path, *[""] * (2 * self._top), str(answer.error)])
            return
        cells = [cell for label, score in answer.top for cell in (label, score)]
        self._writer.writerow([answer.path, *cells, *[""] * (2 * (self._top - len(answer.top))), ""])
