"""TensorBoard's event files of a training run and its evaluation, for those who ask for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from transfer.evaluation.evaluate import Evaluation
from transfer.training.finetune import Epoch
from zoo.errors import UsageError


class TensorboardLog:
    """An event file in a directory, open until the end of the `with` block.

    Raises:
        UsageError: the package tensorboard, which is an extra, is not installed.
    """

    def __init__(self, directory: str | Path) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(directory))

    def __enter__(self) -> TensorboardLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._writer.close()

    def write(self, history: Sequence[Epoch], evaluation: Evaluation | None, *, part: str = "val") -> None:
        """Every number of the history over the epochs, and of the evaluation at the last one.

        Args:
            evaluation: of the images of `part`; None where there are none.
        """
        names = [field.name for field in fields(Epoch) if field.name != "epoch"]
        for line in history:
            for name in names:
                self._number(f"training/{name}", getattr(line, name), line.epoch)
        if evaluation is not None:
            last = history[-1].epoch if history else 0
            for name, value in evaluation.record().items():
                if name != "n":
                    self._number(f"{part}/{name}", value, last)

    def _number(self, name: str, value: object, epoch: int) -> None:
        if isinstance(value, int | float):
            self._writer.add_scalar(name, value, epoch)


def check_tensorboard() -> None:
    """Refuse before any work is done for it.

    Raises:
        UsageError: as `TensorboardLog`.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "TensorBoard files were asked for, and the package tensorboard is not installed: "
            "pip install 'slimzoo[tensorboard]', or ask for none; history.csv has the same numbers"
        )
