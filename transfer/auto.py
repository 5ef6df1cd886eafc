"""`--method auto`: the cheap methods first, training where it can still pay, and the best by validation.

Prototypes and the probe need one pass over the images each. Fine-tuning follows unless validation has nothing left to
gain or `--time` leaves no room; the most accurate on the validation images is kept, and of those that they cannot tell
from it the one that was trained most. Without validation images nothing can be compared, and the number of images
decides.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer import methods
from transfer.data.parts import predictor_of
from transfer.evaluation.evaluate import evaluate_pixels
from transfer.methods import Outcome, Task
from transfer.start import Method
from transfer.training.distributed import from_main, is_main
from transfer.training.finetune import finetune
from zoo.directory import write_json

FEW_SHOT = 3  # images a class, in the middle: up to here class means beat what is trained (Wang et al. 2019, table 1)
RESERVE = 0.85  # share of the time left that training may plan with; the rest is for measuring and writing
TRIAL_IMAGES = 128  # on which an epoch's time is measured
PLAN = "auto.json"  # beside the checkpoints: what was decided by the clock must not be decided again


def auto(task: Task, *, time_s: float | None, began: float) -> Outcome:
    """Run the methods that pay and return the best, with the comparison in its notes.

    Args:
        time_s: for the whole fit, from `began` (`time.monotonic`) on; None sets no limit.
    """
    if task.pixels.val is None:
        method: Method = "prototype" if _images_a_class(task) <= FEW_SHOT else "finetune"
        task.tell(f"auto: {method}, by the number of images: without validation images nothing can be compared")
        return methods.METHODS[method](task)
    tried: list[tuple[NDArray[np.bool_], Outcome]] = []
    rows: list[dict[str, Any]] = []

    def run(method: Method, how: Callable[[Task], Outcome]) -> None:
        at = time.monotonic()
        outcome = how(task)
        right = _right(task, outcome)
        tried.append((right, outcome))
        top1, seconds = float(right.mean()), round(time.monotonic() - at, 2)
        rows.append({"method": method, "val_top1": round(top1, 6), "seconds": seconds})
        task.tell(f"auto: {method} {top1:.1%} on validation images, {seconds:.0f} s")

    run("prototype", methods.prototype)
    run("probe", methods.probe)
    reason = ""
    if from_main(lambda: any(right.all() for right, _ in tried)):
        reason = "no validation image is wrong"
    else:
        epochs = _epochs(task, time_s, began)
        if epochs == 0 and time_s is None:
            reason = "--epochs 0"
        elif epochs == 0:
            reason = f"no epoch fits into the rest of --time {time_s:.0f}s"
        else:
            wanted = task.recipe
            timed = replace(task, recipe=lambda kind: replace(wanted(kind), epochs=min(epochs, wanted(kind).epochs)))
            run("finetune", lambda _: methods.finetune_all(timed))
    if reason:
        rows.append({"method": "finetune", "reason": reason})
        task.tell(f"auto: no fine-tuning, {reason}")
    best = tried[from_main(lambda: _best([right for right, _ in tried]))][1]
    task.tell(f"auto: {best.method} is kept")
    return replace(best, notes={**best.notes, "auto": {"chosen": best.method, "methods": rows}})


def _images_a_class(task: Task) -> float:
    return float(np.median(np.bincount(task.pixels.train.labels, minlength=task.classes)))


def _best(rights: Sequence[NDArray[np.bool_]]) -> int:
    """The last that is not worse than the most accurate by more than one standard error of the paired difference.

    A few dozen validation images tell hardly anything apart, and all candidates cost the same in use: then what is
    known of other data counts, that fine-tuning from a probe beats the probe (Kumar et al. 2022, arXiv 2202.10054,
    table 1), and the probe the prototypes.

    Args:
        rights: which validation images each candidate answers rightly, in the order of how much was trained.
    """
    top = max(rights, key=lambda right: int(right.sum()))

    def equals(right: NDArray[np.bool_]) -> bool:
        won, lost = int((right & ~top).sum()), int((top & ~right).sum())
        return lost - won <= math.sqrt(won + lost)

    return max(i for i, right in enumerate(rights) if equals(right))


def _right(task: Task, outcome: Outcome) -> NDArray[np.bool_]:
    """Which validation images are answered rightly."""
    assert task.pixels.val is not None
    predictor = predictor_of(outcome.model, outcome.config)
    return evaluate_pixels(predictor, task.pixels.val, task.classes, progress=task.progress).correct


def _epochs(task: Task, time_s: float | None, began: float) -> int:
    """How many epochs of fine-tuning fit into the time; decided once, and read again when the run is resumed."""
    recipe = task.recipe("finetune")
    if time_s is None:
        return recipe.epochs
    plan = task.checkpoints / PLAN
    planned = from_main(lambda: json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else None)
    if planned is not None:
        return int(planned["epochs"])
    at = time.monotonic()
    images = np.arange(min(TRIAL_IMAGES, len(task.pixels.train)))
    some = replace(task.training_data, train=task.pixels.train.take(images), val=None)
    finetune(task.network, some, replace(recipe, epochs=1, patience=0), progress=task.progress, title="timing")
    epoch_s = (time.monotonic() - at) * len(task.pixels.train) / len(images)
    left_s = RESERVE * (time_s - (time.monotonic() - began))
    epochs = from_main(lambda: max(0, min(recipe.epochs, int(left_s / epoch_s))))  # by one clock, for all
    if is_main():
        task.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(plan, {"epochs": epochs})
    return epochs
