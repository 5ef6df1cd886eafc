"""The parts of a dataset at a network's size, and what a model is worth on the held-out ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from transfer.data.loader import LabelledPixels, Progress, load_pixels
from transfer.data.seen import pixel_hashes
from transfer.data.sources import Data
from transfer.data.split import TEST, TRAIN, VAL
from transfer.evaluation.evaluate import Evaluation, evaluate_pixels
from transfer.frozen.features import folded
from transfer.training.device import training_device
from zoo.artifact import ModelConfig
from zoo.cost import count_macs, count_parameters
from zoo.predictor import Predictor, TorchPredictor
from zoo.preprocess import Preprocess
from zoo.seen import Seen


@dataclass(frozen=True)
class Pixels:
    """The parts of a dataset at a network's size; a part that the data do not have is None."""

    train: LabelledPixels
    val: LabelledPixels | None
    test: LabelledPixels | None

    def parts(self) -> dict[str, LabelledPixels]:
        """Those that there are, by name."""
        named = {TRAIN: self.train, VAL: self.val, TEST: self.test}
        return {name: part for name, part in named.items() if part is not None}


def read_pixels(data: Data, preprocess: Preprocess, progress: Progress | None) -> Pixels:
    """Decode and resize all parts."""
    parts = {part: load_pixels(data, preprocess, part, progress) for part in (TRAIN, VAL, TEST)}
    return Pixels(parts[TRAIN], parts[VAL] if len(parts[VAL]) else None, parts[TEST] if len(parts[TEST]) else None)


def seen_in(data: Data, pixels: Pixels) -> Seen:
    """The images of a step, by their files' hashes and by those of their pixels as the network takes them."""
    found = Seen.of(data.hashes, data.parts.tolist())
    for part, images in ((TRAIN, pixels.train), (VAL, pixels.val), (TEST, pixels.test)):
        if images is not None:
            found |= Seen.of(pixel_hashes(images), [part] * len(images))
    return found


def evaluate_parts(evaluate: Callable[[LabelledPixels], Evaluation], pixels: Pixels) -> dict[str, Evaluation]:
    """The held-out parts that there are, each evaluated."""
    return {part: evaluate(images) for part, images in pixels.parts().items() if part != TRAIN}


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


def metrics(model: nn.Module, config: ModelConfig, found: dict[str, Evaluation]) -> dict[str, Any]:
    """What a lineage record says of a model: its costs, and what its answers are worth."""
    costs: dict[str, Any] = {
        "params": count_parameters(model),
        "macs": count_macs(model, config.input_size),
        "size_bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
    }
    return costs | {part: evaluation.record() for part, evaluation in found.items()}
