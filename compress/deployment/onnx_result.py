"""What a step gives back that makes an ONNX model, and how such a model is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

import zoo.image
from transfer.result import StepResult
from zoo.files.model_directory import ONNX, ModelConfig, write_config
from zoo.files.predictor import OnnxPredictor

DEPLOY, INFER = "deploy", "infer.py"
SCRIPTS = (INFER, "on_openvino.py", "bench.py")


@dataclass(frozen=True, kw_only=True)
class OnnxResult(StepResult):
    """
    Attributes:
        onnx: the model, from images (bytes, or tensors where they are prepared) to logits and probabilities.
    """

    onnx: onnx.ModelProto

    def write(self, folder: Path) -> None:
        write_onnx(folder, self.onnx, self.config)


def run_without_slimzoo(name: str, config: ModelConfig) -> list[list[str | Path]]:
    """The command for a model directory, where its model takes pictures."""
    return [] if config.preprocess.is_prepared else [["python", Path(name, DEPLOY, INFER), "IMAGE"]]


def write_onnx(folder: Path, model: onnx.ModelProto, config: ModelConfig) -> ModelConfig:
    """Write an ONNX model, what runs it, and its config, which is returned."""
    write_files(folder, files_of(model.SerializeToString(), config))
    OnnxPredictor(folder / ONNX)  # what was written opens
    config = replace(config, primary=ONNX, surgery=[])
    write_config(folder, config)
    return config


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their names, which may lie in a folder of their own."""
    for name, part in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(part)


def files_of(model: bytes, config: ModelConfig) -> dict[str, bytes]:
    """The file, and what runs and times it without slimzoo on a runtime, NumPy and Pillow alone, by name.

    A model that takes tensors as somebody else prepares them has no such script.
    """
    if config.preprocess.is_prepared:
        return {ONNX: model}
    sources = [*(Path(__file__).with_name(name) for name in SCRIPTS), Path(zoo.image.__file__)]
    parts = {ONNX: model, **{source.name: source.read_bytes() for source in sources}}
    return {ONNX: model, **{f"{DEPLOY}/{name}": part for name, part in parts.items()}}
