"""The settings of `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from compress.recovery.distillation import Distillation
from compress.recovery.settings import Patient
from zoo.settings import MOST_EPOCHS, Seeded, option


class Distill(Seeded, Patient, Distillation):
    """The teacher, and how a student learns from it.

    epochs: by default those of the recipe for so many images. size: by default as `fit` chooses it.
    """

    teacher: Annotated[str, BeforeValidator(str)] = option(
        ..., "The model directory to learn from.", metavar="DIR", path=True
    )
    epochs: int | None = option(None, "Passes over the training images.", ge=0, le=MOST_EPOCHS)
    size: int | None = option(None, "Side of the input of a student that is a name, pixels.", ge=8)


def adopt_both(student: str | Path, settings: Distill, keywords: dict[str, Any]) -> tuple[str, Distill]:
    """Model directories of the student and the teacher, of which one at least needs `arch`, `preprocess`, `classes`."""
    from zoo.files.adopt import adopt_all
    from zoo.verb import ADOPTED

    options = {name: keywords.pop(name, None) for name in ADOPTED}
    adopted, teacher = adopt_all([str(student), settings.teacher], **options)
    return adopted, settings.model_copy(update={"teacher": teacher})
