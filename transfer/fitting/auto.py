"""`--method auto`: the cheap methods first, training where it can still pay, and the best by validation.

Prototypes and the probe need one pass over the images each. Fine-tuning follows unless validation has nothing left to
gain (two tasks of 70 and 105 images gained nothing by it either) or `--time` leaves no room. Kept is what has the least
cross-entropy, calibrated: a few dozen images tell answers apart by how sure those are much sooner than by how many are
right. Validation images that were drawn from few say little by themselves, so those to train on count too where they
have been left out: of 122 photographs of things, 23 of them gave prototypes the less loss, all of them the probe, which
answers 87% of others and not 78%. What fine-tuning is better by than these, validation says alone, and fine-tuning is
kept unless another is better by more than two standard errors: of 31 fits of 16 small tasks it was 2.6 points ahead of
the probe on other images, and of the 12 fits of seven tasks where another was ahead by one to two standard errors it
was 3.3 points ahead on other images in the mean, and 0.3 behind in a single one. Without validation images nothing can
be compared, and the number of images decides.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.evaluation.divergence import clearly_less
from transfer.fitting.methods import PLAIN
from transfer.fitting.plan import NoTime
from transfer.fitting.settings import Method
from transfer.fitting.task import Outcome, Task, calibrated_losses
from transfer.training.distributed import from_main, main_first, world_size
from transfer.training.step import CannotTrain
from zoo.errors import first_line

FEW_SHOT = 3  # images a class, in the middle: up to here class means beat what is trained (Wang et al. 2019, table 1)
CLEAR = 2.0  # standard errors by which another has to be ahead of fine-tuning


def auto(task: Task) -> Outcome:
    """Run the methods that pay and return the best, with the comparison in its notes."""
    if task.pixels.val is None:
        return _by_number(task)
    val = task.pixels.val
    tried: list[Outcome] = []
    losses: dict[Method, NDArray[np.float64]] = {}
    rows: list[dict[str, Any]] = []

    def run(method: Method) -> None:
        at = time.monotonic()
        outcome = PLAIN[method](task)
        with main_first():
            found = outcome.evaluate(val, task.progress)
        losses[method], seconds = calibrated_losses(found), round(time.monotonic() - at, 2)
        loss = float(losses[method].mean())
        tried.append(outcome)
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
    expected = _expected(tried, losses, drawn=task.drawn)
    best = tried[from_main(lambda: _best(tried, losses, expected))]
    for row, loss in zip(rows, expected, strict=False):
        row["expected_loss"] = round(loss, 6)
    why = "which has the least loss" if best is tried[int(np.argmin(expected))] else "than which none is clearly better"
    task.tell(f"auto: {best.method} is kept, {why}")
    return replace(best, notes={**best.notes, "auto": {"chosen": best.method, "methods": rows}})


def _expected(tried: list[Outcome], losses: dict[Method, NDArray[np.float64]], *, drawn: bool) -> list[float]:
    """Of each, its loss on all images that it had not seen; fine-tuning's is the probe's and the difference of the two
    on validation images.

    Args:
        losses: on these, image by image.
        drawn: whether they are like those to train on; where they were chosen by somebody, they alone count.
    """
    pooled: dict[Method, float] = {}
    for each in tried:
        own = losses[each.method]
        loss = float(own.mean())
        if drawn and each.method == "finetune":
            loss += pooled["probe"] - float(losses["probe"].mean())
        elif drawn and each.unseen is not None and (others := len(each.unseen.right)):
            loss = (len(own) * loss + others * each.unseen.loss) / (len(own) + others)
        pooled[each.method] = loss
    return list(pooled.values())


def _best(tried: list[Outcome], losses: dict[Method, NDArray[np.float64]], expected: list[float]) -> int:
    """Where fine-tuning was tried: that, unless the better one of the others is clearly better on validation images."""
    methods = [each.method for each in tried]
    if "finetune" not in methods:
        return int(np.argmin(expected))
    last = methods.index("finetune")
    frozen = int(np.argmin(expected[:last]))
    return frozen if clearly_less(losses[methods[frozen]], losses["finetune"], CLEAR) else last


def _by_number(task: Task) -> Outcome:
    """Without validation images: the method that the number of images asks for."""
    method: Method = "prototype" if _images_a_class(task) <= FEW_SHOT else "finetune"
    task.tell(f"auto: {method}, by the number of images: without validation images nothing can be compared")
    try:
        return PLAIN[method](task)
    except NoTime as error:
        task.tell(f"auto: probe instead, {first_line(error)}")
        return PLAIN["probe"](task)


def _images_a_class(task: Task) -> float:
    return float(np.median(np.bincount(task.pixels.train.labels, minlength=task.classes)))
