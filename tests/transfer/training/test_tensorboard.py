"""TensorBoard's files read back with its own reader, where it is installed; one clear line where it is not."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from transfer.evaluation.evaluate import Evaluation
from transfer.training.finetune import Epoch
from transfer.training.tensorboard import TensorboardLog, check_tensorboard
from zoo.errors import UsageError

HISTORY = [
    Epoch(epoch=1, train_loss=2.5, val_top1=0.25, seconds=1.0),
    Epoch(epoch=2, train_loss=1.25, val_top1=None, seconds=1.5),
]


def test_tensorboards_own_reader_finds_every_number(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra, not installed"
    )
    labels = np.array([0, 1, 1])
    evaluation = Evaluation(labels, np.eye(2, dtype=np.float32)[[0, 1, 0]])
    with TensorboardLog(tmp_path / "log") as log:
        log.write(HISTORY, evaluation, part="test")
    found = accumulator.EventAccumulator(str(tmp_path / "log"))
    found.Reload()

    def read(name):
        return [(event.step, event.value) for event in found.Scalars(name)]

    assert read("training/train_loss") == [(1, 2.5), (2, 1.25)]
    assert read("training/val_top1") == [(1, 0.25)]  # what was not measured is not there
    assert read("test/top1") == [(2, pytest.approx(2 / 3, abs=1e-6))]
    assert read("test/nll") == [(2, pytest.approx(evaluation.nll, abs=1e-6))]
    names = set(found.Tags()["scalars"])
    assert {"test/balanced", "test/ece"} <= names
    assert not {"test/top5", "test/n", "training/epoch"} & names


def test_where_it_is_missing_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ask in (check_tensorboard, lambda: TensorboardLog(tmp_path / "log")):
        with pytest.raises(UsageError, match=r"pip install 'slimzoo\[tensorboard\]'"):
            ask()
    assert not (tmp_path / "log").exists()
