"""The one training loop. Recovery after pruning, distillation, sparse training and the like are arguments to it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from transfer.device import keep_freed_memory, training_device
from transfer.evaluation.measure import ready
from transfer.training import distributed
from transfer.training.batch import Batch, Batches, TrainingData, normalized
from transfer.training.boundary import Boundaries
from transfer.training.checkpoint import EndOfStep
from transfer.training.ema import Ema
from transfer.training.optim import build_optimizer, freeze_stages_, rate, set_rates_
from transfer.training.prefetch import Prefetch
from transfer.training.recipe import Recipe
from transfer.training.run_state import Epoch, RunState, Sums, describe_run
from transfer.training.step import CannotTrain, LossFn, NonFinite, Stepper, smoothed_cross_entropy
from zoo.classifier import classifier
from zoo.errors import Interrupted
from zoo.files.predictor import TorchPredictor
from zoo.layout import layout_of
from zoo.progress import Progress
from zoo.tensors import load_tensors_

AfterStep = Callable[[nn.Module, int], None]  # (model, steps done)
# Batches made ahead by a thread. A GPU is fed beside its work; on a CPU making them is 1.5% of a step, and a thread's
# OpenMP team beside the step's makes each parallel region wait asleep: 1.4 times the time on a quiet machine of 2 cores
# (benchmarks/bench_loader.py).
AHEAD = {"cuda": 2, "cpu": 0}


@dataclass(frozen=True)
class Finetuned:
    """A trained model.

    Attributes:
        model: in eval mode, on the CPU: the weights' moving average where the recipe has one, of the best epoch where
            it has patience.
        micro_batch: how many images a process ran at once in the end; fewer than its part if memory was short.
        halvings: how often the rates were halved because something became infinite.
        epochs: how many the model has learned in: all, with patience those up to the best.
    """

    model: nn.Module
    history: list[Epoch]
    micro_batch: int
    halvings: int
    epochs: int


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

    Order, augmentation, mixing and dropout are functions of (seed, epoch, index) or (seed, step), so that a run that
    was killed at any moment and resumed from `checkpoints` ends with the same bits. Every 50 steps and at each epoch's
    end is a boundary, at which the state is kept; when a loss or a gradient is no longer finite, the run goes back to
    the last one and on with half of the rates.

    With several processes (see distributed.py) all call this with the same arguments; each step's batch is that of one
    process, and the main process's model counts.

    Args:
        loss_fn: the default is cross-entropy with the recipe's label smoothing. It must be a mean over the images that
            it is given, which may be a part of the batch.
        after_step: called after each optimizer step, for instance to hold zeros at zero. A function of the model and
            the step alone.
        checkpoints: where to keep the newest states, on boundaries and when interrupted; resumed from if not empty.
        progress: told of every step.

    Raises:
        CannotTrain: the loss or gradient is not finite even at a quarter of the rates, or one image does not fit into
            the memory.
        SlimzooError: no checkpoint can be read.
        UsageError: the checkpoints belong to another recipe or to other data.
        Interrupted: Ctrl-C or SIGTERM; the state is saved first.
    """
    training = _Training(model, data, recipe, loss_fn, after_step, checkpoints, progress, title)
    training.run()
    state = training.state
    trained = training.result().cpu().to(memory_format=torch.contiguous_format).eval()
    for parameter, original in zip(trained.parameters(), model.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    return Finetuned(trained, state.history, state.stepper.micro_batch, state.halvings, training.learned_in())


class _Training:
    """A run between its first step and its last."""

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        recipe: Recipe,
        loss_fn: LossFn | None,
        after_step: AfterStep | None,
        checkpoints: Path | None,
        progress: Progress | None,
        title: str,
    ) -> None:
        keep_freed_memory()
        self.device = training_device()
        model = copy.deepcopy(model).to(self.device).to(memory_format=layout_of(model))
        distributed.copy_from_main_(model)
        freeze_stages_(model, recipe)
        optimizer = build_optimizer(model, recipe)
        stepper = Stepper(model, optimizer, recipe, loss_fn)
        self.state = RunState(model, optimizer, stepper, Ema(model, recipe.ema) if recipe.ema else None)
        self.averaged = copy.deepcopy(model) if recipe.ema else None
        self.data, self.recipe, self.after_step = data, recipe, after_step
        self.title = title
        self.progress = progress if distributed.is_main() else None
        classes = classifier(model).weight.shape[0] if recipe.mixup or recipe.cutmix else 0
        self.batches = Batches(data, recipe, classes, self.device)
        self.boundaries = Boundaries(self.state, describe_run(recipe, data, self.device), checkpoints)
        self.clock, self.at = time.monotonic(), 0  # the step that is being taken

    def run(self) -> None:
        """Train from where the checkpoints are to the end, going back where numbers stop being finite.

        Raises:
            see `finetune`.
        """
        self.boundaries.resume()
        with EndOfStep() as signals:
            while not self._is_over():
                try:
                    self._go_on(signals)
                except NonFinite as fault:
                    said = f"{fault} at step {self.at + 1}: back to a boundary, with half of the rates"
                    if not self.boundaries.go_back():
                        raise CannotTrain(self._describe(fault)) from fault
                    self._say(said)

    def result(self) -> nn.Module:
        """The model that the recipe asks for."""
        evaluated = self._evaluated()
        if self.state.best is not None:
            load_tensors_(evaluated, self.state.best)
        return evaluated

    def learned_in(self) -> int:
        """How many epochs that model has learned in."""
        return len(self.state.history) if self.state.best is None else _best(self.state.history) + 1

    def _go_on(self, signals: EndOfStep) -> None:
        state = self.state
        state.stepper.set_mode_()
        self.clock = time.monotonic()
        with Prefetch(self.batches, range(state.step, self.batches.steps), depth=AHEAD[self.device.type]) as prefetch:
            waited = 0.0
            for step, batch in prefetch:
                began = time.monotonic() - (prefetch.waited_s - waited)
                self._step(step, batch)
                state.sums.step_seconds += time.monotonic() - began
                state.sums.waited_seconds += prefetch.waited_s - waited
                waited = prefetch.waited_s
                epoch_ends = state.step % self.batches.per_epoch == 0
                if epoch_ends:
                    self._end_epoch()
                asked, over = distributed.largest(signals.signal), self._is_over()
                state.sums.seconds += time.monotonic() - self.clock
                self.clock = time.monotonic()
                self.boundaries.keep(epoch_ends=epoch_ends, over=over, asked=bool(asked))
                if asked:
                    raise Interrupted("interrupted", exit_code=128 + asked)
                if over:
                    return

    def _step(self, step: int, batch: Batch) -> None:
        state, recipe, self.at = self.state, self.recipe, step
        set_rates_(state.optimizer, rate(step, self.batches.steps, recipe) * 0.5**state.halvings)
        loss, norm = state.stepper.step(batch, step)
        if self.after_step is not None:
            self.after_step(state.model, step + 1)
        if state.ema is not None:
            state.ema.update_(state.model)
        state.step = step + 1
        state.sums.loss += loss * len(batch.indices)
        state.sums.norm += norm
        self._say(f"loss {loss:.3f}")

    def _end_epoch(self) -> None:
        state = self.state
        val_top1 = self._accuracy()
        now, sums, n = time.monotonic(), state.sums, len(self.data.train)
        line = Epoch(
            epoch=len(state.history) + 1,
            train_loss=sums.loss / n,
            val_top1=val_top1,
            seconds=round(sums.seconds + now - self.clock, 2),
            lr=max(group["lr"] for group in state.optimizer.param_groups),
            waiting_share=round(sums.waited_seconds / sums.step_seconds, 4),
            grad_norm=sums.norm / self.batches.per_epoch,
        )
        before = max((e.val_top1 for e in state.history if e.val_top1 is not None), default=-1.0)
        if self.recipe.patience and val_top1 is not None and val_top1 > before:
            state.best = {name: t.detach().clone() for name, t in self._evaluated().state_dict().items()}
        state.history.append(line)
        state.sums, self.clock = Sums(), now
        state.stepper.set_mode_()

    def _describe(self, fault: NonFinite) -> str:
        recipe, keys = self.recipe, self.data.train.keys
        indices = self.batches.indices(self.at)
        names = [keys[i] if keys else f"image {i}" for i in indices[:3]]
        more = f" and {len(indices) - len(names)} more" if len(indices) > len(names) else ""
        share = 0.5**self.state.halvings
        return (
            f"{fault} at step {self.at + 1} of {self.batches.steps}, after the rates were halved {self.state.halvings} "
            f"times to lr={recipe.lr * share:g}, backbone_lr={recipe.backbone_lr * share:g}: try a tenth of --lr, or "
            f"look at that batch: {', '.join(names)}{more}"
        )

    def _is_over(self) -> bool:
        history, patience = self.state.history, self.recipe.patience
        if self.state.step >= self.batches.steps:
            return True
        return bool(patience) and self.state.best is not None and len(history) - 1 - _best(history) >= patience

    def _evaluated(self) -> nn.Module:
        """The model as it is evaluated and returned."""
        if self.averaged is None or self.state.ema is None:
            return self.state.model
        self.state.ema.copy_to_(self.averaged)
        return self.averaged

    def _accuracy(self) -> float | None:
        """Top-1 on the validation images; each process takes its part of them, and no image counts twice."""
        val = self.data.val
        if val is None:
            return None
        part = distributed.share(len(val))
        right = 0
        if part.start < part.stop:
            predictor = TorchPredictor(ready(self._evaluated(), self.data.preprocess), self.data.preprocess, None)
            right = int((predictor.logits(val.pixels[part]).argmax(1) == val.labels[part]).sum())
        return distributed.total(right) / len(val)

    def _say(self, note: str) -> None:
        if self.progress is not None:
            history = self.state.history
            val = f"  val {history[-1].val_top1:.1%}" if history and history[-1].val_top1 is not None else ""
            self.progress(self.title, self.state.step, self.batches.steps, note + val)


def _best(history: list[Epoch]) -> int:
    """The epoch, from 0, of the highest validation accuracy; the first of equals."""
    return max(range(len(history)), key=lambda epoch: -1.0 if (top1 := history[epoch].val_top1) is None else top1)


__all__ = [
    "AfterStep",
    "Epoch",
    "Finetuned",
    "LossFn",
    "TrainingData",
    "finetune",
    "normalized",
    "smoothed_cross_entropy",
]
