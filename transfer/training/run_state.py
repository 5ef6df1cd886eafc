"""Everything of a training run that changes from step to step, to be kept, read back, and gone back to."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from transfer.data.cache import content_key
from transfer.training import distributed
from transfer.training.batch import TrainingData
from transfer.training.checkpoint import Checkpoint
from transfer.training.ema import Ema
from transfer.training.recipe import Recipe
from transfer.training.step import Stepper
from zoo.errors import UsageError
from zoo.tensors import load_tensors_


@dataclass(frozen=True)
class Epoch:
    """One line of the history.

    Attributes:
        train_loss: mean over the epoch's images, augmented and mixed as they were.
        val_top1: share of the validation images that are classified rightly, after the epoch.
        seconds: wall-clock time, evaluation included.
        lr: the highest group's rate in the last step.
        waiting_share: of the time in training steps, waiting for the inputs.
        grad_norm: mean over the epoch's steps, before clipping.
    """

    epoch: int
    train_loss: float
    val_top1: float | None
    seconds: float
    lr: float = 0.0
    waiting_share: float = 0.0
    grad_norm: float = 0.0


@dataclass
class Sums:
    """What becomes the line of an epoch that is under way."""

    loss: float = 0.0  # times images
    norm: float = 0.0
    seconds: float = 0.0
    step_seconds: float = 0.0
    waited_seconds: float = 0.0


@dataclass
class RunState:
    """The parts of a run that a checkpoint holds.

    Attributes:
        ema: of the weights, where the recipe wants one.
        step: how many are done.
        halvings: how often the rates were halved after something became infinite.
        best: the tensors of the model as it was evaluated after the best epoch, where the recipe wants patience.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    stepper: Stepper
    ema: Ema | None
    step: int = 0
    halvings: int = 0
    sums: Sums = field(default_factory=Sums)
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] | None = None

    def capture(self, run: dict[str, Any], *, boundary: bool) -> Checkpoint:
        """A copy of all of it.

        Args:
            run: see `describe_run`.
        """
        slots = self.optimizer.state_dict()["state"]
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": {f"{i}.{name}": value for i in slots for name, value in slots[i].items() if value is not None},
        }
        if self.ema is not None:
            tensors["ema"] = self.ema.tensors
        if self.best is not None:
            tensors["best"] = self.best
        state = {
            "step": self.step,
            "halvings": self.halvings,
            "boundary": boundary,
            "micro_batch": self.stepper.micro_batch,
            "scaler": self.stepper.scaler.state_dict(),
            "sums": vars(self.sums).copy(),
            "history": [vars(line) for line in self.history],
            "run": run,
        }
        copied = {
            file: {name: t.detach().to("cpu", copy=True) for name, t in named.items()}
            for file, named in tensors.items()
        }
        return Checkpoint(state, copied)

    def restore_(self, checkpoint: Checkpoint) -> None:
        """Become what was captured; the checkpoint stays as it is."""
        state, tensors = checkpoint.state, checkpoint.tensors
        self.step, self.halvings = state["step"], state["halvings"]
        self.stepper.micro_batch = state["micro_batch"]
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.sums = Sums(**state["sums"])
        self.history = [Epoch(**line) for line in state["history"]]
        load_tensors_(self.model, tensors["model"])
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors["optimizer"].items():
            index, _, name = key.partition(".")
            slots.setdefault(int(index), {})[name] = value.clone()  # the optimizer takes them over as its own
        self.optimizer.load_state_dict({"state": slots, "param_groups": self.optimizer.state_dict()["param_groups"]})
        if self.ema is not None:
            self.ema.load_(tensors["ema"])
        self.best = copy.copy(tensors.get("best"))


def describe_run(recipe: Recipe, data: TrainingData, device: torch.device) -> dict[str, Any]:
    """What a checkpoint was made with, JSON-ready."""
    found = {
        "recipe": recipe.to_dict(),
        "images": len(data.train),
        "data": content_key(*(part.content() for part in (data.train, data.val) if part is not None)),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }
    return dict(json.loads(json.dumps(found)))


def check_same_run(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with another recipe or other data, and warn where only the bits may differ.

    Raises:
        UsageError: naming what differs.
    """
    old, new = ({**run["recipe"], "images": run["images"]} for run in (before, now))
    if before["images"] == now["images"] and before["data"] != now["data"]:
        raise UsageError("the checkpoints were made with other images or labels: start afresh with --overwrite")
    changed = [f"{name}={old.get(name)} then and {new.get(name)} now" for name in new if old.get(name) != new.get(name)]
    if changed:
        raise UsageError(
            f"the checkpoints were made with {', '.join(changed)}: resume with the same arguments, or start afresh "
            "with --overwrite"
        )
    moved = [
        f"{before[name]} {name}, now {now[name]}" for name in ("threads", "processes") if before[name] != now[name]
    ]
    if before["device"] != now["device"]:
        moved.append(f"{before['device']}, now {now['device']}")
    if moved:
        warnings.warn(f"the run began on {'; '.join(moved)}: it may end with other bits", stacklevel=2)
