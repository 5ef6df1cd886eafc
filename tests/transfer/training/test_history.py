"""history.csv, read back."""

from __future__ import annotations

import csv
from dataclasses import fields

from transfer.training.finetune import Epoch
from transfer.training.history import save_history


def test_a_line_an_epoch_with_every_field(tmp_path):
    history = [
        Epoch(epoch=1, train_loss=2.25, val_top1=None, seconds=1.5),
        Epoch(epoch=2, train_loss=1.125, val_top1=0.1 + 0.2, seconds=1.0),
    ]
    save_history(history, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == [field.name for field in fields(Epoch)]
    assert (first["epoch"], first["train_loss"], first["val_top1"]) == ("1", "2.25", "")
    assert float(second["val_top1"]) == 0.1 + 0.2  # to the last bit
