"""`--method auto`: the cheap methods first, training where it can still pay, and the best by validation.

Prototypes and the probe need one pass over the images each. Fine-tuning follows unless validation has nothing left to
gain or `--time` leaves no room; the most accurate on the validation images is kept, and of those that they cannot tell
from it the one that was trained most. Without validation images nothing can be compared, and the number of images
decides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.fitting.methods import METHODS, Outcome, Task, finetune_all
from transfer.fitting.plan import NoTime
from transfer.fitting.settings import Method
from transfer.training.distributed import from_main, main_first, world_size
from transfer.training.step import CannotTrain
from zoo.errors import first_line

LEVEL = 0.1  # of the sign test
CANDIDATES = {**METHODS, "finetune": finetune_all}  # which is compared with the probe here
FEW_SHOT = 3  # images a class, in the middle: up to here class means beat what is trained (Wang et al. 2019, table 1)


def auto(task: Task) -> Outcome:
    """Run the methods that pay and return the best, with the comparison in its notes."""
    if task.pixels.val is None:
        return _by_number(task)
    val = task.pixels.val
    tried: list[tuple[NDArray[np.bool_], Outcome]] = []
    rows: list[dict[str, Any]] = []

    def run(method: Method) -> None:
        at = time.monotonic()
        outcome = CANDIDATES[method](task)
        with main_first():
            right = outcome.evaluate(val, task.progress).correct
        tried.append((right, outcome))
        top1, seconds = float(right.mean()), round(time.monotonic() - at, 2)
        rows.append({"method": method, "val_top1": round(top1, 6), "seconds": seconds})
        task.tell(f"auto: {method} {top1:.1%} on validation images, {seconds:.0f} s")

    run("prototype")
    run("probe")
    reason = ""
    if from_main(lambda: any(right.all() for right, _ in tried)):
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
    rights = [right for right, _ in tried]
    chosen = from_main(lambda: _best(rights))
    best, ahead = tried[chosen][1], max(right.mean() for right in rights) > rights[chosen].mean()
    why = ": the images are too few to tell another from it, and it was trained most" if ahead else ""
    task.tell(f"auto: {best.method} is kept{why}")
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


def _best(rights: Sequence[NDArray[np.bool_]]) -> int:
    """The last that is not worse than the most accurate by more than chance makes it.

    A few dozen validation images tell hardly anything apart, and all candidates cost the same in use. Until they do, by
    a one-sided sign test on the images that one of two answers rightly, what is known of other data counts: that
    fine-tuning from a probe beats the probe (Kumar et al. 2022, arXiv 2202.10054, table 1), and the probe the
    prototypes.

    Args:
        rights: which validation images each candidate answers rightly, in the order of how much was trained.
    """
    top = max(rights, key=lambda right: int(right.sum()))

    def equals(right: NDArray[np.bool_]) -> bool:
        won, lost = int((right & ~top).sum()), int((top & ~right).sum())
        chance: float = sum(math.comb(won + lost, k) for k in range(won + 1)) / 2 ** (won + lost)  # of winning no more
        return chance > LEVEL

    return max(i for i, right in enumerate(rights) if equals(right))
