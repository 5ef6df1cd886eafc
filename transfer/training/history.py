"""The history of a training run as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from transfer.training.finetune import Epoch


def save_history(history: Sequence[Epoch], path: Path) -> None:
    """Write a CSV file: a line an epoch, a column for each field; what was not measured is left empty."""
    names = [field.name for field in fields(Epoch)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows({name: getattr(line, name) for name in names} for line in history)
