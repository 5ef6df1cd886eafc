"""What is decided right before a training: is the model fit for it, at which rate, for how many epochs.

Decided once and kept beside the checkpoints, because a run that is resumed must not decide anew by a clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from transfer.training.batch import TrainingData
from transfer.training.distributed import from_main, is_main
from transfer.training.finetune import finetune
from transfer.training.preflight import Begins, preflight
from transfer.training.range_test import FEWEST_STEPS, range_test, save_range
from transfer.training.recipe import Recipe
from transfer.training.step import CannotTrain
from zoo.disk import write_json
from zoo.progress import Progress

PLAN = "plan.json"
RESERVE = 0.85  # share of the time left that training may plan with; the rest is for measuring and writing
TRIAL_IMAGES = 128  # on which an epoch's time is measured
RANGE_STEPS = 100  # of a range test, fastai's number; of a short training at most a quarter of its steps


class NoTime(CannotTrain):
    """Not one epoch fits into the time."""


def planned(
    network: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    checkpoints: Path,
    deadline: float | None = None,
    find_lr: bool = False,
    begins: Begins = "fresh",
    whole: tuple[nn.Module, TrainingData] | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe as it will be run, and notes for the lineage: the preflight, and the range test if there was one.

    Args:
        checkpoints: where the plan is kept and read again; the picture of the range test goes beside that folder.
        deadline: of `time.monotonic`, for all that is still to come; None sets no limit.
        find_lr: replace the rates by those of a range test.
        begins: see `preflight`.
        whole: the network, where what is trained is a part of it, and its data.
        tell: told the lines of the preflight.

    Raises:
        NoTime: less than one epoch fits in before the deadline.
        CannotTrain: the range test found no rate at which the loss falls.
    """
    path = checkpoints / PLAN
    kept = from_main(lambda: json.loads(path.read_text(encoding="utf-8")) if path.exists() else None)
    if kept is None:
        epoch_s = None if deadline is None or recipe.epochs == 0 else _epoch_seconds(network, data, recipe, progress)
        _fitting(recipe, epoch_s, deadline)  # before anything else takes time
        checked = preflight(
            *(whole or (network, data)),
            recipe,
            begins=begins,
            part=None if whole is None else (network, data),
            progress=progress,
        )
        for line in checked.lines():
            tell(line)
        notes: dict[str, Any] = {"preflight": checked.to_dict()}
        changes: dict[str, Any] = {}
        if find_lr:
            found = _found_rate(network, data, recipe, checkpoints.parent, progress)
            tell(f"range test: --lr {found:.2g} (the recipe's is {recipe.lr:.2g})")
            changes = {"lr": found, "backbone_lr": found * recipe.backbone_lr / recipe.lr}
            notes["range_test"] = {"suggestion": found}
        changes["epochs"] = _fitting(recipe, epoch_s, deadline)
        kept = {"recipe": changes, "notes": notes}
        if is_main():
            checkpoints.mkdir(parents=True, exist_ok=True)
            write_json(path, kept)
    return replace(recipe, **kept["recipe"]), kept["notes"]


def follow_plan(checkpoints: Path, judge: Path, *, epochs: int) -> None:
    """Let a training go by the plan of its judge's, which the preflight has tried, for so many epochs.

    Args:
        checkpoints, judge: where the plans of both are kept.
    """
    if not (judge / PLAN).is_file():
        return
    plan = json.loads((judge / PLAN).read_text(encoding="utf-8"))
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_json(checkpoints / PLAN, {**plan, "recipe": {**plan["recipe"], "epochs": epochs}})


def _epoch_seconds(network: nn.Module, data: TrainingData, recipe: Recipe, progress: Progress | None) -> float:
    """An epoch's, with its validation, from one of a few images."""
    share = min(1.0, TRIAL_IMAGES / len(data.train))
    train = data.train.take(np.arange(round(share * len(data.train))))
    val = None if data.val is None else data.val.take(np.arange(max(1, round(share * len(data.val)))))
    began = time.monotonic()
    once = replace(recipe, epochs=1, patience=0)
    finetune(network, replace(data, train=train, val=val), once, progress=progress, title="timing")
    return (time.monotonic() - began) / share


def _fitting(recipe: Recipe, epoch_s: float | None, deadline: float | None) -> int:
    """How many of the recipe's epochs fit in before the deadline.

    Raises:
        NoTime: none.
    """
    if epoch_s is None or deadline is None:
        return recipe.epochs
    epochs = from_main(lambda: int(RESERVE * (deadline - time.monotonic()) / epoch_s))  # by one clock, for all
    if epochs < 1:
        raise NoTime(
            f"no epoch of {epoch_s:.0f} s fits into the rest of --time: give it more time, a smaller --size or "
            "--model, or take --method probe"
        )
    return min(epochs, recipe.epochs)


def _found_rate(
    network: nn.Module, data: TrainingData, recipe: Recipe, folder: Path, progress: Progress | None
) -> float:
    steps = recipe.steps(len(data.train))
    tested = range_test(network, data, recipe, steps=min(RANGE_STEPS, max(FEWEST_STEPS, steps // 4)), progress=progress)
    if is_main():
        save_range(tested, folder / "range_test.png")
    if tested.suggestion is None:
        raise CannotTrain("the range test found no rate at which the loss falls; give one with --lr")
    return tested.suggestion
