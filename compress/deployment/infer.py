"""Classify images with the model.onnx beside this file: python infer.py [--runtime openvino] IMAGE...

Needs onnxruntime or openvino, NumPy and Pillow. The model takes pixels of any size: resizing and normalization are
inside it.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from image import ImageError, least_of, load_image
from numpy.typing import NDArray

MODEL = Path(__file__).resolve().with_name("model.onnx")
TOP = 3


class OnnxRuntime:
    """Call it with pixels, (height, width, 3) uint8, to get the probabilities of the classes."""

    def __init__(self, model: str | Path) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self.card: dict[str, Any] = json.loads(self.session.get_modelmeta().custom_metadata_map["slimzoo"])

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.session.run(["probabilities"], {"pixels": pixels[None]})[0][0]
        return found


class Classifier:
    """Call it with the path or the bytes of an image."""

    def __init__(self, model: str | Path = MODEL, runtime: str = "onnxruntime") -> None:
        self.network: Any = _in_openvino(model) if runtime == "openvino" else OnnxRuntime(model)
        self.card = self.network.card

    def __call__(self, image: str | Path | bytes) -> list[tuple[str, float]]:
        """Classes with their probabilities, the likeliest first."""
        rule = self.card["preprocess"]
        least = least_of(rule["size"], rule["resize_to"])
        probabilities = self.network(load_image(image, background=tuple(rule["background"]), least=least))
        classes = self.card["classes"] or [f"class {i}" for i in range(len(probabilities))]
        return [(classes[i], float(probabilities[i])) for i in np.argsort(-probabilities)]


def _in_openvino(model: str | Path) -> Any:
    from on_openvino import OpenVino

    return OpenVino(model)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Classify images with the model.onnx beside this file.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--runtime", choices=["onnxruntime", "openvino"], default="onnxruntime")
    given = parser.parse_args(words)
    for stream in (sys.stdout, sys.stderr):  # names that the terminal has no characters for
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    classify, failed = Classifier(runtime=given.runtime), 0
    for image in given.images:
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
