"""A step of compression, from one network to the next: the skeleton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.data.sources import Data
from transfer.data.split import TEST, VAL
from transfer.evaluation.measure import measure, predictor_of
from transfer.result import ModelResult
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import LoadedModel, ModelConfig, load_model, save_model
from zoo.files.program import refuse_program
from zoo.files.rehearsal import rehearse
from zoo.progress import Progress
from zoo.run import Run

R = TypeVar("R", bound=ModelResult)
LARGE_LOSS = 5.0  # points of accuracy that are told by themselves
ROUNDING = 1e-9  # of shares of right answers


def load_editable(source: str | Path | LoadedModel, verb: str) -> LoadedModel:
    """Load a model whose layers can be changed.

    Raises:
        UsageError: it is a program; see also `load_model`.
    """
    loaded = load_model(source)
    refuse_program(loaded.model, loaded.config.architecture, verb)
    return loaded


@dataclass(frozen=True)
class Start:
    """What a step begins with.

    Attributes:
        loaded: the model.
        source: the images, where there are some.
        rehearsed: the network that is saved once before any training, to see that it can be; that of `loaded`, unless
            another is nearer to what the step will make.
        measured: whether the model's accuracy is worth knowing before.
    """

    loaded: LoadedModel
    source: Data | None
    rehearsed: nn.Module | None = None
    measured: bool = True


@dataclass(frozen=True)
class Work:
    """A step at work: its start, and the folder in which its checkpoints are kept."""

    start: Start
    folder: Path
    progress: Progress | None

    @property
    def model(self) -> nn.Module:
        return self.start.loaded.model

    @property
    def config(self) -> ModelConfig:
        return self.start.loaded.config

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    @cached_property
    def pixels(self) -> Pixels | None:
        """The images at the network's size."""
        source = self.start.source
        return None if source is None else read_pixels(source, self.config.preprocess, self.progress)

    def measure(self, network: nn.Module) -> dict[str, Any]:
        """Costs, and accuracies on the held-out parts; empty without images."""
        if self.pixels is None:
            return {}
        return measure(predictor_of(network, self.config), network, self.config, self.pixels, self.progress)


@dataclass(frozen=True)
class Made:
    """What a step made.

    Attributes:
        before, after: figures beside those that are measured of every model.
        notes: for the record.
        result: fields of the step's own result.
    """

    network: nn.Module
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    than: tuple[Mapping[str, Any] | None, str] | None = None  # what a large loss is measured from, if not from before


def run_step(
    run: Run,
    start: Start,
    work: Callable[[Work], Made],
    result: type[R],
    *,
    advice: str,
    rehearse_too: Callable[[Path, nn.Module], None] = lambda folder, network: None,
    progress: Progress | None = None,
) -> R:
    """Rehearse, measure, work, measure again, record and save.

    Args:
        work: from the model and images to what was made of them.
        result: what the step gives back.
        advice: what to do where more than 5 points of accuracy were lost.
        rehearse_too: other files that could be found impossible only at the end.
    """
    if start.source is not None:
        run.data = start.source.record()
    with run.directory() as folder:
        at_work = Work(start, folder, progress)
        config, network = at_work.config, at_work.model if start.rehearsed is None else start.rehearsed
        rehearse(folder, network, config, run.record(done=False))
        rehearse_too(folder, network)
        pixels = at_work.pixels
        before = at_work.measure(at_work.model) if start.measured else None
        made = work(at_work)
        after = at_work.measure(made.network) | dict(made.after)
        before = None if before is None else before | dict(made.before)
        base, than = made.than or (before, "before")
        record = run.record(
            before=before, after=after, **made.notes, large_loss=large_loss(base, after, advice, than=than)
        )
        seen = None if start.source is None or pixels is None else seen_in(start.source, pixels)
        config = config.with_step(record, seen)
        if run.out is not None:
            config = save_model(folder, made.network, config)
        return result(model=made.network, config=config, out=run.out, record=record, **made.result)


def large_loss(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], advice: str, *, than: str = "before"
) -> dict[str, Any] | None:
    """Note for a step's record that it lost more than 5 points on validation images, or on test ones without those.

    Args:
        before, after: metrics.
        advice: what to do then.
        than: what `before` is of.
    """
    part = next((part for part in (VAL, TEST) if part in (before or {}) and part in after), None)
    if before is None or part is None:
        return None
    points = 100 * (before[part]["top1"] - after[part]["top1"])
    if points <= LARGE_LOSS + ROUNDING:
        return None
    return {"part": part, "points": round(points, 2), "than": than, "advice": advice}
