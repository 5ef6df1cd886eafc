"""`slimzoo predict`: labels and scores for image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.image import load_image
from zoo.predictor import open_predictor


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first, with softmax scores."""

    path: str
    top: tuple[tuple[str, float], ...]


def predict(source: str | Path, images: Sequence[str | Path], *, top: int = 5) -> list[Prediction]:
    """Classify image files with a model directory, an exported ONNX file, "timm:NAME" or "torchvision:NAME".

    Raises:
        zoo.image.ImageError: a file that is not a readable image; it is named, and nothing is predicted.
    """
    predictor = open_predictor(source)
    predictions = []
    for path in images:
        pixels = load_image(path, background=predictor.preprocess.background)
        if pixels.shape[:2] == predictor.preprocess.size:  # else they would be taken for what is cut out already
            pixels = predictor.preprocess.resize(pixels)
        logits = predictor.logits(pixels[None])[0].astype(np.float64)
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        names = predictor.classes or tuple(f"class {i}" for i in range(len(scores)))
        best = np.argsort(-scores)[:top]
        predictions.append(Prediction(str(path), tuple((names[i], round(float(scores[i]), 4)) for i in best)))
    return predictions
