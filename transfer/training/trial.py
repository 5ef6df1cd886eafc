"""A copy of a model to try things on: single training steps outside of the training loop that leave nothing behind."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.device import training_device
from transfer.training.batch import TrainingData, normalized
from transfer.training.cpu_operators import CpuOperators
from transfer.training.frozen_norms import frozen_norms
from transfer.training.optim import build_optimizer, freeze_stages_, set_rates_
from transfer.training.recipe import Recipe
from transfer.training.step import AUXILIARY_WEIGHT
from zoo.errors import SlimzooError
from zoo.layout import layout_of

STEPS = 8  # of `overfit`
SAME_LOGITS = 1e-4  # equal inputs give logits that are equal to rounding, about 1e-6


@contextmanager
def on_a_copy(model: nn.Module, recipe: Recipe) -> Iterator[nn.Module]:
    """A copy as `finetune` makes it; the model and the state of the global generators are as before afterwards."""
    device = training_device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        tried = copy.deepcopy(model).to(device).to(memory_format=layout_of(model))
        freeze_stages_(tried, recipe)
        yield tried


def network_inputs(data: TrainingData, indices: NDArray[np.intp]) -> Tensor:
    """(B, C, H, W) of these training images, not augmented, on the training device."""
    pixels = torch.from_numpy(data.train.pixels[indices]).to(training_device()).permute(0, 3, 1, 2).float()
    return normalized(pixels, data.preprocess).contiguous(memory_format=torch.channels_last)


def set_mode_(model: nn.Module, recipe: Recipe, *, training: bool) -> None:
    """Training or evaluation; BatchNorm normalizes by what the recipe says in either, so that losses compare."""
    model.train(training)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            trained = all(p.requires_grad for p in module.parameters())
            module.train(trained and not recipe.freeze_statistics)


def loss_of(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy against (B,) labels, with that of auxiliary heads where the mode has them."""
    output = model(inputs)
    main, *auxiliary = [output] if isinstance(output, Tensor) else [logits for logits in output if logits is not None]
    loss = F.cross_entropy(main, labels)
    for logits in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(logits, labels)
    return loss


@dataclass(frozen=True)
class Overfitted:
    """What a few steps on one batch did."""

    first: float  # the loss before, in evaluation mode
    last: float  # and after
    norm: float  # of the first gradient
    unreached: tuple[str, ...]  # trainable parameters that never had a gradient
    zero: tuple[str, ...]  # and those whose gradient was zero at every step
    trainable: int
    alike: bool  # the logits after do not depend on the image


def overfit(
    model: nn.Module, recipe: Recipe, inputs: Tensor, labels: Tensor, said: Callable[[str], None]
) -> Overfitted:
    """Train eight steps on one batch by the recipe's optimizer, the rate rising to its peak, without weight decay.

    Raises:
        SlimzooError: the output is detached from every parameter.
    """
    optimizer = build_optimizer(model, replace(recipe, weight_decay=0.0))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    reached, moved = set[str](), set[str]()
    (first, _), norm = _evaluated(model, recipe, inputs, labels), math.inf
    set_mode_(model, recipe, training=True)
    norms = frozen_norms(model, inputs[:2])
    for step in range(STEPS):
        set_rates_(optimizer, (step + 1) / STEPS)
        with CpuOperators(), norms:
            loss = loss_of(model, inputs, labels)
        if not loss.requires_grad:
            raise SlimzooError("no gradient reaches any parameter: the model's output is detached from its weights")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        present = {name: p.grad for name, p in trainable.items() if p.grad is not None}
        reached |= present.keys()
        moved |= {name for name, gradient in present.items() if name not in moved and bool(gradient.any())}
        found = float(nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm))
        norm = finite(found) if step == 0 else norm
        optimizer.step()
        said(f"loss {float(loss.detach()):.3f}")
    last, logits = _evaluated(model, recipe, inputs, labels)
    return Overfitted(
        first=first,
        last=last,
        norm=norm,
        unreached=tuple(name for name in trainable if name not in reached),
        zero=tuple(name for name in trainable if name in reached and name not in moved),
        trainable=len(trainable),
        alike=bool((logits.amax(0) - logits.amin(0)).max() < SAME_LOGITS),
    )


@torch.no_grad()
def _evaluated(model: nn.Module, recipe: Recipe, inputs: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    set_mode_(model, recipe, training=False)
    logits = model(inputs)
    return finite(float(F.cross_entropy(logits, labels))), logits


def finite(value: float) -> float:
    """The value, with inf for nan."""
    return value if math.isfinite(value) else math.inf
