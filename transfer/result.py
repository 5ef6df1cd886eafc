"""What a step gives back: its record, and what a person wants to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.data.split import TEST, VAL
from transfer.evaluation.metrics import Metrics
from zoo.errors import UsageError
from zoo.files.directory import check_free, new_directory
from zoo.files.model_directory import LoadedModel, ModelConfig, save_model
from zoo.lineage import IN_MEMORY


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """
    Attributes:
        out: the directory that was made; None where none was asked for, and the result is in memory.
        record: of this step, the last of the config's lineage.
    """

    config: ModelConfig
    out: Path | None
    record: dict[str, Any]

    def __str__(self) -> str:
        return str(self.out or f"{IN_MEMORY}{self.config.architecture}")

    @property
    def name(self) -> str:
        """What lines call it: the directory, or what is in memory."""
        return str(self)

    @property
    def before(self) -> Metrics | None:
        """Costs and accuracies of the model that the step began with, as far as known."""
        return Metrics.of(self.record["metrics"]["before"])

    @property
    def after(self) -> Metrics:
        """Costs and accuracies of what was made."""
        found = Metrics.of(self.record["metrics"]["after"])
        assert found is not None
        return found

    def lines(self) -> list[str]:
        """What a person wants to know of it, before `lost`."""
        return [f"before: {self.before}", f"after:  {self.after}"]

    def lost(self) -> list[str]:
        """Say where the step cost more than 5 points of accuracy, and what to do; for the last lines."""
        if not (lost := self.record.get("large_loss")):
            return []
        images = {VAL: "validation", TEST: "test"}[lost["part"]]
        return [
            f"WARN: {lost['points']:.1f} points fewer of the {images} images are right than {lost['than']}; "
            f"{lost['advice']}"
        ]

    def in_short(self) -> list[str]:
        """What it came to, where what was asked for was said before."""
        return [f"{self.out}: {self.after}", *self.lost()]

    def next(self) -> list[list[str | Path]]:
        """Commands that one would want to type now."""
        return []

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write what is in memory as a model directory.

        Raises:
            UsageError: `out` is taken; the step has written a directory already.
        """
        out = Path(out)
        if self.out is not None:
            raise UsageError(f"this is saved already, as {self.out}; copy that")
        check_free(out, overwrite=overwrite)
        run = {"verb": self.record["verb"], "arguments": self.record["arguments"]}
        with new_directory(out, run=run, overwrite=overwrite) as work:
            self.write(work)
        return out

    def write(self, folder: Path) -> None:
        """The files of its model directory."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ModelResult(StepResult, LoadedModel):
    """The result of a step that makes a network: every other step takes it, as it takes a directory."""

    def write(self, folder: Path) -> None:
        save_model(folder, self.model, self.config, self.judge)
