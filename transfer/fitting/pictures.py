"""The pictures and tables that a fit writes beside its model: curves, findings, inputs, TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

from transfer.data.check_sheets import save_input_sheet
from transfer.data.parts import Pixels
from transfer.data.sources import Data
from transfer.data.split import TEST, VAL
from transfer.evaluation.evaluate import Evaluated, Evaluation
from transfer.evaluation.findings import write_findings
from transfer.fitting.task import Outcome, Task
from transfer.training.curves import save_curves
from transfer.training.finetune import Epoch
from transfer.training.history import save_history
from transfer.training.tensorboard import TensorboardLog

LOGS = "tensorboard"


def shown(found: dict[str, Evaluation], pixels: Pixels, source: Data) -> Evaluated | None:
    """What the pictures show: the test images, else the validation images, by which the method was chosen."""
    for part, images in ((TEST, pixels.test), (VAL, pixels.val)):
        if part in found and images is not None:
            return Evaluated(found[part], source, part, images)
    return None


def write_curves(work: Path, history: list[Epoch]) -> None:
    save_history(history, work / "history.csv")
    save_curves(history, work / "curves.png")


def write_pictures(work: Path, outcome: Outcome, evaluated: Evaluated | None, task: Task, *, tensorboard: bool) -> None:
    if outcome.history:
        write_curves(work, outcome.history)
    if evaluated is not None:
        write_findings(evaluated, work)
    if outcome.method in ("finetune", "scratch") and not task.config.preprocess.is_prepared:
        train, recipe = task.pixels.train, task.recipe(outcome.method)
        save_input_sheet(
            train.pixels,
            train.labels,
            train.keys,
            task.config.classes or (),
            task.config.preprocess,
            recipe.augment,
            work / "inputs.png",
            seed=recipe.seed,
        )
    if tensorboard:
        with TensorboardLog(work / LOGS) as log:
            if evaluated is None:
                log.write(outcome.history, None)
            else:
                log.write(outcome.history, evaluated.evaluation, part=evaluated.part)
