"""Classify images with the model.onnx beside this file: python infer.py IMAGE...

Needs onnxruntime, NumPy and Pillow. The model takes pixels of any size: resizing and normalization are inside it.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from image import ImageError, least_of, load_image

MODEL = Path(__file__).resolve().with_name("model.onnx")
TOP = 3


class Classifier:
    """Call it with the path or the bytes of an image."""

    def __init__(self, model: str | Path = MODEL) -> None:
        self.session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self.card = json.loads(self.session.get_modelmeta().custom_metadata_map["slimzoo"])

    def __call__(self, image: str | Path | bytes) -> list[tuple[str, float]]:
        """Classes with their probabilities, the likeliest first."""
        rule = self.card["preprocess"]
        least = least_of(rule["size"], rule["resize_to"])
        pixels = load_image(image, background=tuple(rule["background"]), least=least)
        probabilities = self.session.run(["probabilities"], {"pixels": pixels[None]})[0][0]
        classes = self.card["classes"] or [f"class {i}" for i in range(len(probabilities))]
        return [(classes[i], float(probabilities[i])) for i in np.argsort(-probabilities)]


def main(images: list[str]) -> int:
    if not images:
        print("usage: python infer.py IMAGE...", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):  # names that the terminal has no characters for
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    classify, failed = Classifier(), 0
    for image in images:
        try:
            best = classify(image)[:TOP]
        except ImageError as error:
            print(error, file=sys.stderr)
            failed = error.exit_code
        else:
            print(f"{image}:", *(f" {name} {probability:.1%}" for name, probability in best))
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
