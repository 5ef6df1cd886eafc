"""The one training loop. Recovery after pruning, distillation, sparse training and the like are arguments to it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.augment import augment_batch
from transfer.checkpoint import EndOfStep, load_checkpoint_, save_checkpoint
from transfer.loader import LabelledPixels, Progress, batches
from transfer.optim import build_optimizer, one_cycle, set_rates_
from transfer.recipe import Recipe
from zoo.errors import SlimzooError
from zoo.predictor import TorchPredictor
from zoo.preprocess import Preprocess

LossFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits (B, K), labels (B,), network inputs (B, C, H, W)) -> ()
AUXILIARY_WEIGHT = 0.3  # Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, sec. 5
AfterStep = Callable[[nn.Module, int], None]  # (model, steps done)


@dataclass(frozen=True)
class Epoch:
    """One line of the history."""

    epoch: int
    train_loss: float
    val_top1: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingData:
    train: LabelledPixels
    val: LabelledPixels | None
    preprocess: Preprocess


@dataclass(frozen=True)
class Finetuned:
    model: nn.Module  # in eval mode, on the CPU
    history: list[Epoch]


def finetune(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    loss_fn: LossFn | None = None,
    after_step: AfterStep | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    title: str = "training",
) -> Finetuned:
    """Train a copy of `model` and return it; the caller's model is left alone.

    Order, augmentation and dropout are functions of (seed, epoch, index) or (seed, step), so that a run that was
    interrupted and resumed from `checkpoints` ends with the same bits.

    Args:
        loss_fn: the default is cross-entropy with the recipe's label smoothing.
        after_step: called after each optimizer step, for instance to hold zeros at zero.
        checkpoints: where to keep the newest state, after each epoch and when interrupted; resumed from if not empty.
        progress: told of every step.

    Raises:
        SlimzooError: the loss is no longer a finite number.
        Interrupted: Ctrl-C or SIGTERM; the state is saved first.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = copy.deepcopy(model).to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, recipe)
    loss_fn = loss_fn or smoothed_cross_entropy(recipe.label_smoothing)
    state = load_checkpoint_(checkpoints, model, optimizer) if checkpoints is not None else None
    state = state or {"step": 0, "loss_sum": 0.0, "history": [], "recipe": recipe.to_dict()}
    history = [Epoch(**line) for line in state["history"]]
    per_epoch = -(-len(data.train) // recipe.batch)
    steps = recipe.epochs * per_epoch

    with EndOfStep() as signals:
        began = time.monotonic()
        for step in range(state["step"], steps):
            epoch, position = divmod(step, per_epoch)
            indices = batches(len(data.train), recipe.batch, seed=recipe.seed, epoch=epoch)[position]
            inputs = _inputs(data, indices, recipe, epoch, device)
            labels = torch.from_numpy(data.train.labels[indices]).to(device)
            torch.manual_seed(hash((recipe.seed, step)))  # dropout
            set_rates_(optimizer, one_cycle(step, steps, recipe.warmup))
            loss = _step(model, optimizer, loss_fn, inputs, labels, recipe)
            if after_step is not None:
                after_step(model, step + 1)
            state["loss_sum"] += loss * len(indices)
            if progress is not None:
                val = f"val {history[-1].val_top1:.1%}" if history and history[-1].val_top1 is not None else ""
                progress(title, step + 1, steps, f"loss {loss:.3f}  {val}")
            if position + 1 == per_epoch:
                val_top1 = _accuracy(model, data) if data.val is not None else None
                train_loss = state["loss_sum"] / len(data.train)
                history.append(Epoch(epoch + 1, train_loss, val_top1, round(time.monotonic() - began, 2)))
                state["loss_sum"], began = 0.0, time.monotonic()
            state["step"], state["history"] = step + 1, [vars(line) for line in history]
            if checkpoints is not None and (position + 1 == per_epoch or signals.signal is not None):
                save_checkpoint(checkpoints, model, optimizer, state)
            signals.raise_if_asked()
    return Finetuned(model.cpu().to(memory_format=torch.contiguous_format).eval(), history)


def smoothed_cross_entropy(label_smoothing: float) -> LossFn:
    """Cross-entropy against (1 - s) on the label and s / K everywhere."""

    def loss_fn(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    return loss_fn


def normalized(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(B, C, H, W) float pixels in 0..255 to what the network takes."""
    mean = pixels.new_tensor(preprocess.mean).view(1, -1, 1, 1) * 255
    std = pixels.new_tensor(preprocess.std).view(1, -1, 1, 1) * 255
    return (pixels - mean) / std


def _inputs(data: TrainingData, indices: NDArray[np.intp], recipe: Recipe, epoch: int, device: torch.device) -> Tensor:
    pixels = torch.from_numpy(data.train.pixels[indices]).to(device)
    pixels = pixels.permute(0, 3, 1, 2).float()  # a channels-last view, so no copy follows
    pixels = augment_batch(pixels, indices, recipe.augment, seed=recipe.seed, epoch=epoch)
    return normalized(pixels, data.preprocess).contiguous(memory_format=torch.channels_last)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: LossFn,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
) -> float:
    model.train()
    if recipe.freeze_statistics:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    main, *auxiliary = _logits(model(inputs))
    loss = loss_fn(main, labels, inputs)
    for logits in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * loss_fn(logits, labels, inputs)
    if not torch.isfinite(loss):
        raise SlimzooError(
            f"the loss became {loss.item()} with lr={recipe.lr}, backbone_lr={recipe.backbone_lr}: try a tenth of --lr"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    return float(loss.item())


def _logits(output: Tensor | Sequence[Tensor | None]) -> list[Tensor]:
    """The logits, and behind them those of the auxiliary heads that GoogLeNet and Inception have in training."""
    return [output] if isinstance(output, Tensor) else [logits for logits in output if logits is not None]


def _accuracy(model: nn.Module, data: TrainingData) -> float:
    assert data.val is not None
    predictor = TorchPredictor(model.eval(), data.preprocess, None)
    return float((predictor.logits(data.val.pixels).argmax(1) == data.val.labels).mean())
