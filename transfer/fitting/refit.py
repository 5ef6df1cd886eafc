"""Fit twice: first without the validation images, by which everything is chosen, then as was chosen on every image.

The first is the judge of the second (`zoo.files.judge`), and later steps choose by its answers to the validation
images. What the second is worth is said by answers to all images, each by a classifier that was trained without it, and
by what fine-tuning changed of the judge's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from transfer.data.loader import LabelledPixels
from transfer.evaluation.evaluate import rounded
from transfer.evaluation.statistics import out_of_fold
from transfer.fitting.methods import PLAIN
from transfer.fitting.task import Outcome, Task
from transfer.training.distributed import main_first
from transfer.training.step import CannotTrain
from zoo.errors import first_line

WHOLE = "whole"  # the folder of its checkpoints, and its place in the notes


def fit_twice(task: Task, fit: Callable[[Task], Outcome]) -> Outcome:
    """What `fit` makes without the validation images, as the judge of the same made with them.

    Args:
        fit: the method, or `auto`.
    """
    every = task.pixels.whole()
    deadline = task.deadline
    if deadline is not None:  # the second takes as many epochs, of more images
        share = len(task.pixels.train) / (len(task.pixels.train) + len(every.train))
        deadline = time.monotonic() + share * (deadline - time.monotonic())
    judge = fit(replace(task, deadline=deadline, drawn=True))
    task.tell(f"{judge.method}: once more, on all {len(every.train)} images")
    whole = replace(
        task, pixels=every, decided=judge.recipe, tail="tail" in judge.notes, checkpoints=task.checkpoints / WHOLE
    )
    try:
        outcome = PLAIN[judge.method](whole).averaged(judge.share)
    except CannotTrain as error:
        task.tell(f"not trained on the validation images: {first_line(error)}")
        return replace(judge, judge=judge.model, notes={**judge.notes, WHOLE: {"reason": first_line(error)}})
    notes = {**judge.notes, WHOLE: {"images": len(every.train), **outcome.notes}}
    return replace(
        outcome,
        history=judge.history,
        notes=notes,
        judge=judge.model,
        expected=_expected(judge, outcome, whole, task.pixels.val),
    )


def _expected(judge: Outcome, outcome: Outcome, task: Task, val: LabelledPixels | None) -> dict[str, Any] | None:
    """The accuracy to expect of new images, for the lineage; None where no image was left out of anything.

    Args:
        task: of the outcome, on all images.
        val: those that the judge has not seen.
    """
    unseen = outcome.unseen
    if unseen is None or len(unseen.right) < 2:
        return None
    changed = None
    if judge.start is not None and val is not None:
        with main_first():
            began = replace(judge, method="probe", model=judge.start).evaluate(val, task.progress)
            changed = began.correct, judge.evaluate(val, task.progress).correct
    counts = np.bincount(task.pixels.train.labels)
    top1, interval = out_of_fold(unseen.right, unseen.folds, counts, changed)
    found = {"top1": rounded(top1), "top1_ci": rounded(interval), "n": len(unseen.right)}
    return found if changed is None else {**found, "changed_n": len(changed[0])}
