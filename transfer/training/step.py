"""One step of training on a batch that may be more than the device holds at once, or than one process has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.device import autocast, loss_scaler
from transfer.training import distributed
from transfer.training.batch import Batch
from transfer.training.cpu_operators import CpuOperators
from transfer.training.frozen_norms import frozen_norms
from transfer.training.recipe import Recipe
from zoo.errors import SlimzooError

# (logits (b, K), targets (b,) indices or (b, K) shares, network inputs (b, C, H, W)) -> (), a mean over the b images
LossFn = Callable[[Tensor, Tensor, Tensor], Tensor]
AUXILIARY_WEIGHT = 0.3  # Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, sec. 5


class CannotTrain(SlimzooError):
    """This model cannot be trained so, on this machine; others may."""


class NonFinite(Exception):
    """Something became NaN or infinite; nothing was done to the weights yet, or nothing was saved."""


class Stepper:
    """Takes the optimizer's steps.

    Attributes:
        micro_batch: how many images this process runs at once. It is halved when the device's memory does not suffice;
            gradients are then accumulated, so that the step stays that of the whole batch.
        scaler: of the loss, for float16.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, loss_fn: LossFn | None = None
    ) -> None:
        self._model, self._optimizer, self._recipe = model, optimizer, recipe
        self._loss_fn = loss_fn or smoothed_cross_entropy(recipe.label_smoothing)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._device = next(model.parameters()).device
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._still = [m for m in norms if recipe.freeze_statistics or _is_frozen(m)]
        self._statistics = [b for m in norms if m not in self._still for b in m.buffers()]
        self._inside: AbstractContextManager[object] | None = None  # of `frozen_norms`
        self.micro_batch = -(-recipe.batch // distributed.world_size())
        self.scaler = loss_scaler(self._device)

    def set_mode_(self) -> None:
        """Training mode, BatchNorms that keep their statistics excepted."""
        self._model.train()
        for module in self._still:
            module.eval()

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        """Take one step; the loss, a mean over the whole batch, and the norm of its gradient before clipping (0 where
        float16 overflowed, and the step was left out).

        Raises:
            NonFinite: one of the two is not finite; no weight was touched.
            CannotTrain: not even one image fits into the device's memory.
        """
        batch.arrive()
        loss = self._accumulate(batch, step)
        for statistic in self._statistics:
            if statistic.is_floating_point():
                statistic.mul_(len(batch) / len(batch.indices))  # each process saw other images: their mean
        distributed.sum_gradients_(self._parameters, [loss, *(s for s in self._statistics if s.is_floating_point())])
        self.scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_norm)
        loss_value, norm_value = torch.stack([loss, norm.to(loss)]).tolist()  # the one wait for the device
        # a scaled gradient may overflow; the scaler then leaves the step out and scales less next time
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not math.isfinite(loss_value):
            raise NonFinite(f"the loss became {loss_value}")
        if not (math.isfinite(norm_value) or overflow):
            raise NonFinite(f"the gradient's norm became {norm_value}")
        self.scaler.step(self._optimizer)
        self.scaler.update()
        return loss_value, norm_value if math.isfinite(norm_value) else 0.0

    def _accumulate(self, batch: Batch, step: int) -> Tensor:
        """Leave this process's share of the gradient in the parameters; its share of the loss."""
        before = [statistic.clone() for statistic in self._statistics]
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            try:
                return self._passes(batch, step)
            except torch.OutOfMemoryError as error:
                if self.micro_batch == 1:
                    raise CannotTrain(
                        f"one image of {tuple(batch.inputs.shape[2:])} pixels at a time does not fit into the memory "
                        f"of {self._device}: try a smaller --size or another --model"
                    ) from error
            # outside of the handler: the error held on to the tensors of the failed pass
            self.micro_batch = -(-min(self.micro_batch, len(batch)) // 2)
            for statistic, value in zip(self._statistics, before, strict=True):
                statistic.copy_(value)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _passes(self, batch: Batch, step: int) -> Tensor:
        loss = torch.zeros((), device=self._device)
        # parts of nearly equal size: BatchNorm must not see a last one of one image
        parts = -(-len(batch) // self.micro_batch)
        start = batch.start
        for inputs, targets in zip(*(_split(t, parts) for t in (batch.inputs, batch.targets)), strict=True):
            _seed(self._device, dropout_seed(self._recipe.seed, step, start))
            if self._inside is None:
                self._inside = frozen_norms(self._model, inputs[:2])
            with autocast(self._device), CpuOperators(), self._inside:
                main, *auxiliary = _logits(self._model(inputs))
                part_loss = self._loss_fn(main.float(), targets, inputs)
                for logits in auxiliary:
                    part_loss = part_loss + AUXILIARY_WEIGHT * self._loss_fn(logits.float(), targets, inputs)
            part_loss = part_loss * (len(targets) / len(batch.indices))
            self.scaler.scale(part_loss).backward()  # type: ignore[no-untyped-call]
            loss += part_loss.detach()
            start += len(targets)
        return loss


def _seed(device: torch.device, seed: int) -> None:
    """`torch.manual_seed` where numbers are drawn; for devices that are not there it formats a stack, a millisecond."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def dropout_seed(seed: int, step: int, position: int) -> int:
    """A seed for torch's generator from those of a run, a step and a place in its batch."""
    return int(np.random.SeedSequence((seed, step, position)).generate_state(1, np.uint64)[0])


def smoothed_cross_entropy(label_smoothing: float) -> LossFn:
    """Cross-entropy against (1 - s) on the label and s / K everywhere; mixed labels are smoothed in the same way."""

    def loss_fn(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)

    return loss_fn


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def _split(tensor: Tensor, parts: int) -> tuple[Tensor, ...]:
    return tensor.tensor_split(parts) if parts else ()  # a process may have no image of a small batch


def _logits(output: Tensor | Sequence[Tensor | None]) -> list[Tensor]:
    """The logits, and behind them those of the auxiliary heads that GoogLeNet and Inception have in training."""
    return [output] if isinstance(output, Tensor) else [logits for logits in output if logits is not None]
