"""The model.onnx beside this file in OpenVINO, for `python infer.py --runtime openvino`.

Needs openvino, NumPy and Pillow. OpenVINO resizes pictures in another way than the model was trained with, so that here
Pillow resizes them, and OpenVINO runs the network alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13
from PIL import Image

INPUT = "input"  # of the network, after all that prepares pixels
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class OpenVino:
    """Call it with pixels, (height, width, 3) uint8, to get the probabilities of the classes."""

    def __init__(self, model: str | Path) -> None:
        core = openvino.Core()
        whole = core.read_model(model)
        self.card: dict[str, Any] = json.loads(whole.get_rt_info(["framework", "slimzoo"]).astype(str))
        rule = self.card["preprocess"]
        shape = [1, len(rule["mean"]), *rule["size"]]
        prepared = opset13.parameter(openvino.PartialShape(shape), openvino.Type.f32, name=INPUT)
        outputs = [output for node in whole.get_ordered_ops() for output in node.outputs()]
        boundary = next(output for output in outputs if INPUT in output.get_names())
        for consumer in list(boundary.get_target_inputs()):
            consumer.replace_source_output(prepared.output(0))
        network = openvino.Model(whole.get_results(), [prepared], "network")
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(network, "CPU", settings)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._compiled(prepare(pixels, self.card["preprocess"]))["probabilities"][0]
        return found


def prepare(pixels: NDArray[np.uint8], rule: dict[str, Any]) -> NDArray[np.float32]:
    """(height, width, 3) pixels of any size to what the network takes, (1, C, H, W)."""
    picture = Image.fromarray(pixels)
    grey = len(rule["mean"]) == 1
    picture = picture.convert("L") if grey else picture
    height, width = rule["size"]
    h, w = pixels.shape[:2]
    if rule["mode"] == "squash":
        picture = _resized(picture, height, width, rule)
    elif rule["mode"] == "crop":
        scale = rule["resize_to"] / min(h, w)
        picture = _resized(picture, _scaled(h, scale), _scaled(w, scale), rule)
        top, left = (picture.height - height) // 2, (picture.width - width) // 2
        picture = picture.crop((left, top, left + width, top + height))
    else:
        scale = min(height / h, width / w)
        inner = _resized(picture, min(_scaled(h, scale), height), min(_scaled(w, scale), width), rule)
        picture = Image.new("RGB", (width, height), tuple(rule["background"])).convert(inner.mode)
        picture.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    levels = np.asarray(picture, dtype=np.float32).reshape(height, width, -1)
    mean, std = (np.array(rule[name], dtype=np.float32) * np.float32(255) for name in ("mean", "std"))
    return np.ascontiguousarray(((levels - mean) / std).transpose(2, 0, 1)[None])


def _resized(picture: Image.Image, height: int, width: int, rule: dict[str, Any]) -> Image.Image:
    """Rows before columns, each to 8-bit levels, as in training."""
    if (picture.height, picture.width) == (height, width):
        return picture
    how = FILTERS[rule["interpolation"]]
    return picture.resize((width, picture.height), how).resize((width, height), how)


def _scaled(length: int, scale: float) -> int:
    return max(1, math.floor(length * scale + 0.5))
