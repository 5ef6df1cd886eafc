"""What the settings of several steps have in common: when the training after a step stops, and what it sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from zoo.settings import Settings, option

Source = Annotated[
    str | None, BeforeValidator(lambda given: str(given) if isinstance(given, Path) else given), "str | Path | None"
]


class Patient(Settings):
    """By default a training goes on to its end, where its rate is lowest."""

    patience: int = option(
        0, "Stop after this many epochs without a better validation accuracy, and take the best; 0 never stops.", ge=0
    )


class Unlabeled(Settings):
    """Images beside those of the data, of which no label is known or needed."""

    unlabeled: Source = option(
        None, "Images of any kind to learn from too, up to 1,000: the model labels them.", metavar="FOLDER", path=True
    )
