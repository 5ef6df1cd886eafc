"""What the settings of several steps have in common: when the training after a step stops."""

from __future__ import annotations

from zoo.settings import Settings, option


class Patient(Settings):
    """By default a training goes on to its end, where its rate is lowest."""

    patience: int = option(
        0, "Stop after this many epochs without a better validation accuracy, and take the best; 0 never stops.", ge=0
    )
