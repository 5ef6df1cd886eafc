"""The settings of `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.recovery.distillation import Distillation
from compress.recovery.settings import Patient, Unlabeled
from transfer.fitting.settings import Model
from zoo.lineage import names_a_model
from zoo.settings import MOST_EPOCHS, Seeded, option


class Distill(Seeded, Unlabeled, Patient, Distillation):
    """The teacher, and how a student learns from it.

    epochs: by default those of the recipe for so many images. size: by default as `fit` chooses it.
    """

    teacher: Model = option(..., "The model directory to learn from.", metavar="DIR", path=True)
    epochs: int | None = option(None, "Passes over the training images.", ge=0, le=MOST_EPOCHS)
    size: int | None = option(None, "Side of the input of a student that is a name, pixels.", ge=8)


class Taught(Seeded, Unlabeled, Patient, Distillation):
    """The same as a step of a plan, whose teacher is what the steps before have made."""

    student: str = option(..., "The name of a model.", metavar="NAME", path=names_a_model)
    epochs: int | None = option(None, "Passes over the training images.", ge=0, le=MOST_EPOCHS)
    size: int | None = option(None, "Side of the student's input, pixels.", ge=8)

    def by(self, teacher: str | Path) -> Distill:
        return Distill(teacher=teacher, **{k: v for k, v in self.arguments().items() if k != "student"})


def adopt_both(student: Any, settings: Distill, keywords: dict[str, Any]) -> tuple[Any, Distill]:
    """Model directories of the student and the teacher, of which one at least needs `arch`, `preprocess`, `classes`."""
    from zoo.files.adopt import adopt_all, path_of
    from zoo.verb import ADOPTED

    options = {name: keywords.pop(name, None) for name in ADOPTED}
    given = [path_of(student), settings.teacher]
    named = [each for each in given if isinstance(each, str | Path)]
    adopted = dict(zip(map(str, named), adopt_all([str(each) for each in named], **options), strict=True))
    student, teacher = (adopted[str(each)] if isinstance(each, str | Path) else each for each in given)
    return student, settings.model_copy(update={"teacher": teacher})
