"""What a training step sees, as a function of the step: indices, augmented and mixed inputs, targets."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfer.data.augment import Augment, augment_batch
from transfer.data.loader import LabelledPixels, batches
from transfer.training import distributed
from transfer.training.mix import mix_batch
from transfer.training.recipe import Recipe
from zoo.preprocess import Preprocess


@dataclass(frozen=True)
class TrainingData:
    train: LabelledPixels
    val: LabelledPixels | None
    preprocess: Preprocess


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch.

    Attributes:
        indices: (B,) positions in the training set, of the whole batch.
        start: where in the batch this process's b images begin.
        inputs: (b, C, H, W), channels-last.
        targets: (b,) class indices, or (b, K) shares of the classes where images were mixed.
        made: on a GPU, the moment from which inputs and targets may be used.
    """

    indices: NDArray[np.intp]
    start: int
    inputs: Tensor
    targets: Tensor
    made: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def arrive(self) -> None:
        """Let the present stream wait for what another one makes."""
        if self.made is not None:
            stream = torch.cuda.current_stream(self.inputs.device)
            stream.wait_event(self.made)
            for tensor in (self.inputs, self.targets):
                tensor.record_stream(stream)


class Batches:
    """The batches of a training run; steps count from 0 through all epochs.

    Args:
        classes: K, for mixed targets.
    """

    def __init__(self, data: TrainingData, recipe: Recipe, classes: int, device: torch.device) -> None:
        self._data, self._recipe, self._classes, self._device = data, recipe, classes, device
        self._order: tuple[int, list[NDArray[np.intp]]] = (-1, [])
        # pixels are copied and augmented beside the step, which has the default stream
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self.per_epoch = -(-len(data.train) // recipe.batch)
        self.steps = recipe.epochs * self.per_epoch

    def indices(self, step: int) -> NDArray[np.intp]:
        """(B,) positions in the training set of the whole batch of a step."""
        epoch, position = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            count, recipe = len(self._data.train), self._recipe
            self._order = (epoch, batches(count, recipe.batch, seed=recipe.seed, epoch=epoch))
        return self._order[1][position]

    def __call__(self, step: int) -> Batch:
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            indices, recipe = self.indices(step), self._recipe
            part = distributed.share(len(indices))
            mixed = bool(recipe.mixup or recipe.cutmix)
            seen = slice(None) if mixed else part  # an image's partner may lie in another process's part
            inputs, targets = self._inputs(indices[seen], step // self.per_epoch), self._labels(indices[seen])
            if mixed:
                inputs, targets = mix_batch(
                    inputs,
                    targets,
                    classes=self._classes,
                    mixup=recipe.mixup,
                    cutmix=recipe.cutmix,
                    seed=recipe.seed,
                    step=step,
                )
                inputs, targets = inputs[part], targets[part]
            made = self._stream.record_event() if self._stream is not None else None
        return Batch(indices, part.start, inputs, targets, made)

    def _inputs(self, indices: NDArray[np.intp], epoch: int) -> Tensor:
        pixels = self._sent(torch.from_numpy(self._data.train.pixels[indices]))
        recipe = self._recipe
        return augmented(pixels, indices, self._data.preprocess, recipe.augment, seed=recipe.seed, epoch=epoch)

    def _labels(self, indices: NDArray[np.intp]) -> Tensor:
        return self._sent(torch.from_numpy(self._data.train.labels[indices]))

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor if self._stream is None else tensor.pin_memory().to(self._device, non_blocking=True)


def augmented(
    pixels: Tensor, indices: NDArray[np.intp], preprocess: Preprocess, augment: Augment, *, seed: int, epoch: int
) -> Tensor:
    """(B, H, W, C) pixels, or what is prepared already, to (B, C, H, W) augmented inputs, channels-last.

    Args:
        indices: see `augment_batch`.
    """
    if preprocess.is_prepared:  # what is prepared by somebody else has no colours that are known
        augment = replace(augment, colour=0.0, grey=0.0, hue_deg=0.0)
    pixels = pixels.permute(0, 3, 1, 2).float()  # a channels-last view, so no copy follows
    if len(indices):  # of a small batch, a process may have no image
        pixels = augment_batch(pixels, indices, augment, seed=seed, epoch=epoch)
    return normalized(pixels, preprocess).contiguous(memory_format=torch.channels_last)


def normalized(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(B, C, H, W) float pixels in 0..255, or what is prepared already, to what the network takes."""
    if preprocess.is_prepared:
        return pixels
    mean = pixels.new_tensor(preprocess.mean).view(1, -1, 1, 1) * 255
    std = pixels.new_tensor(preprocess.std).view(1, -1, 1, 1) * 255
    return (pixels - mean) / std
