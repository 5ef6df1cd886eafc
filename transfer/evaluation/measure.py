"""What a lineage record says of a model: its costs, and what its answers on the held-out parts are worth."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from transfer.data.loader import LabelledPixels
from transfer.data.parts import Pixels
from transfer.data.split import TRAIN
from transfer.device import training_device
from transfer.evaluation.evaluate import Evaluation, evaluate_pixels
from zoo.cost import count_macs, count_parameters
from zoo.files.model_directory import ModelConfig
from zoo.files.predictor import Predictor, TorchPredictor
from zoo.folding import folded
from zoo.preprocess import Preprocess
from zoo.progress import Progress


def predictor_of(model: nn.Module, config: ModelConfig) -> TorchPredictor:
    """The model in eval mode, on the device that training takes, BatchNorm folded on a CPU; the model itself stays."""
    return TorchPredictor(ready(model, config.preprocess), config.preprocess, config.classes)


def ready(model: nn.Module, preprocess: Preprocess) -> nn.Module:
    """The model in eval mode, or a copy that answers the same in less time."""
    model, device = model.eval(), training_device()
    if next(model.parameters()).device.type != device.type:
        return copy.deepcopy(model).to(device)
    if device.type != "cpu":
        return model
    noise = torch.randn(2, preprocess.channels, *preprocess.size, generator=torch.Generator().manual_seed(0))
    return folded(model, noise.contiguous(memory_format=torch.channels_last))


def measure(
    predictor: Predictor, model: nn.Module, config: ModelConfig, pixels: Pixels, progress: Progress | None
) -> dict[str, Any]:
    """`metrics` of the model with that predictor's answers."""
    classes = len(config.classes or ())
    return metrics(
        model, config, evaluate_parts(lambda part: evaluate_pixels(predictor, part, classes, progress=progress), pixels)
    )


def evaluate_parts(evaluate: Callable[[LabelledPixels], Evaluation], pixels: Pixels) -> dict[str, Evaluation]:
    """The held-out parts that there are, each evaluated."""
    return {part: evaluate(images) for part, images in pixels.parts().items() if part != TRAIN}


def metrics(model: nn.Module, config: ModelConfig, found: dict[str, Evaluation]) -> dict[str, Any]:
    """What a lineage record says of a model: its costs, and what its answers are worth."""
    costs: dict[str, Any] = {
        "params": count_parameters(model),
        "macs": count_macs(model, config.input_size),
        "size_bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
    }
    return costs | {part: evaluation.record() for part, evaluation in found.items()}
