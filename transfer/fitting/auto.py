"""`--method auto`: the cheap methods first, training where it can still pay, and the best by validation.

Prototypes and the probe need one pass over the images each. Fine-tuning follows unless validation has nothing left to
gain or `--time` leaves no room. Kept is what has the least cross-entropy on the validation images, calibrated: a few
dozen of them tell answers apart by how sure those are much sooner than by how many are right. Without validation images
nothing can be compared, and the number of images decides.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from transfer.fitting.methods import METHODS, Outcome, Task, calibrated_loss, finetune_all
from transfer.fitting.plan import NoTime
from transfer.fitting.settings import Method
from transfer.training.distributed import from_main, main_first, world_size
from transfer.training.step import CannotTrain
from zoo.errors import first_line

CANDIDATES = {**METHODS, "finetune": finetune_all}  # which is compared with the probe here
FEW_SHOT = 3  # images a class, in the middle: up to here class means beat what is trained (Wang et al. 2019, table 1)


def auto(task: Task) -> Outcome:
    """Run the methods that pay and return the best, with the comparison in its notes."""
    if task.pixels.val is None:
        return _by_number(task)
    val = task.pixels.val
    tried: list[tuple[float, Outcome]] = []
    rows: list[dict[str, Any]] = []

    def run(method: Method) -> None:
        at = time.monotonic()
        outcome = CANDIDATES[method](task)
        with main_first():
            found = outcome.evaluate(val, task.progress)
        loss, seconds = calibrated_loss(found), round(time.monotonic() - at, 2)
        tried.append((loss, outcome))
        rows.append(
            {"method": method, "val_top1": round(found.top1, 6), "val_loss": round(loss, 6), "seconds": seconds}
        )
        task.tell(f"auto: {method} {found.top1:.1%} on validation images, loss {loss:.3f}, {seconds:.0f} s")

    run("prototype")
    run("probe")
    reason = ""
    if from_main(lambda: any(row["val_top1"] == 1 for row in rows)):
        reason = "no validation image is wrong"
    elif task.recipe("finetune").epochs == 0:
        reason = "--epochs 0"
    else:
        try:
            run("finetune")
        except CannotTrain as error:
            if world_size() > 1 and not isinstance(error, NoTime):
                raise  # the other processes may not have met it, and go on
            reason = first_line(error)
    if reason:
        rows.append({"method": "finetune", "reason": reason})
        task.tell(f"auto: no fine-tuning, {reason}")
    best = tried[from_main(lambda: int(np.argmin([loss for loss, _ in tried])))][1]
    task.tell(f"auto: {best.method} is kept, which has the least loss")
    return replace(best, notes={**best.notes, "auto": {"chosen": best.method, "methods": rows}})


def _by_number(task: Task) -> Outcome:
    """Without validation images: the method that the number of images asks for."""
    method: Method = "prototype" if _images_a_class(task) <= FEW_SHOT else "finetune"
    task.tell(f"auto: {method}, by the number of images: without validation images nothing can be compared")
    try:
        return CANDIDATES[method](task)
    except NoTime as error:
        task.tell(f"auto: probe instead, {first_line(error)}")
        return CANDIDATES["probe"](task)


def _images_a_class(task: Task) -> float:
    return float(np.median(np.bincount(task.pixels.train.labels, minlength=task.classes)))
