"""Fit twice: first without the validation images, by which everything is chosen, then as was chosen on every image.

The first is the judge of the second (`zoo.files.judge`): its answers to the validation images are what the accuracy is
worth, and later steps choose by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from transfer.fitting.methods import METHODS, Outcome, Task, finetune_all
from transfer.fitting.settings import Method
from transfer.training.step import CannotTrain
from zoo.errors import first_line

WHOLE = "whole"  # the folder of its checkpoints, and its place in the notes
AGAIN: dict[Method, Callable[[Task], Outcome]] = {**METHODS, "finetune": finetune_all}  # which was compared before


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
    judge = fit(replace(task, deadline=deadline))
    task.tell(f"{judge.method}: once more, on all {len(every.train)} images")
    whole = replace(
        task, pixels=every, decided=judge.recipe, tail="tail" in judge.notes, checkpoints=task.checkpoints / WHOLE
    )
    try:
        outcome = AGAIN[judge.method](whole).averaged(judge.share)
    except CannotTrain as error:
        task.tell(f"not trained on the validation images: {first_line(error)}")
        return replace(judge, judge=judge.model, notes={**judge.notes, WHOLE: {"reason": first_line(error)}})
    notes = {**judge.notes, WHOLE: {"images": len(every.train), **outcome.notes}}
    return replace(outcome, history=judge.history, notes=notes, judge=judge.model)
