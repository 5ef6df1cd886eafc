"""A step of compression, from one network to the next: the skeleton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.data.sources import Data
from transfer.data.split import TEST, TRAIN, VAL
from transfer.evaluation.measure import measure, predictor_of
from transfer.result import ModelResult
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import LoadedModel, ModelConfig, load_model, save_model
from zoo.files.program import refuse_program
from zoo.files.rehearsal import rehearse
from zoo.files.seen import FOLD
from zoo.preprocess import Preprocess
from zoo.progress import Progress
from zoo.run import Run

R = TypeVar("R", bound=ModelResult)
JUDGE = "judge"  # the folder of its checkpoints
LARGE_LOSS = 5.0  # points of accuracy that are told by themselves
ROUNDING = 1e-9  # of shares of right answers


def load_editable(source: str | Path | LoadedModel, verb: str) -> LoadedModel:
    """Load a model whose layers can be changed, and its judge.

    Raises:
        UsageError: it is a program; see also `load_model`.
    """
    loaded = load_model(source, judge=True)
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
        more: what joins others to the images to train on, given both of one size.
    """

    loaded: LoadedModel
    source: Data | None
    rehearsed: nn.Module | None = None
    measured: bool = True
    more: Callable[[Pixels, Preprocess], Pixels] = lambda pixels, preprocess: pixels


@dataclass(frozen=True)
class Work:
    """A step at work on a model and its images.

    Attributes:
        checkpoints: the folder in which they are kept.
        judged: what became of the model's judge before, from which decisions are taken; None where there is none, and
            where this is the work on it. See zoo/files/judge.py.
        read: the images, where they have been read.
    """

    start: Start
    checkpoints: Path
    progress: Progress | None
    judged: Made | None = None
    read: Pixels | None = None

    @property
    def model(self) -> nn.Module:
        return self.start.loaded.model

    @property
    def config(self) -> ModelConfig:
        return self.start.loaded.config

    @cached_property
    def pixels(self) -> Pixels | None:
        """The images at the network's size."""
        source = self.start.source
        if self.read is not None:
            return self.read
        if source is None:
            return None
        preprocess = self.config.preprocess
        return self.start.more(read_pixels(source, preprocess, self.progress), preprocess)

    def measure(self, network: nn.Module) -> dict[str, Any]:
        """Costs, and accuracies on the held-out parts; empty without images."""
        if self.pixels is None:
            return {}
        return measure(predictor_of(network, self.config), network, self.config, self.pixels, self.progress)

    def at(self, preprocess: Preprocess, read: Pixels | None = None) -> Work:
        """The same with images of another size; `read` are those, where they have been read."""
        loaded = self.start.loaded
        loaded = replace(loaded, config=replace(loaded.config, preprocess=preprocess))
        return replace(self, start=replace(self.start, loaded=loaded), read=read)

    def on_judge(self, judge: nn.Module) -> Work:
        """The same on the model's judge."""
        start = replace(self.start, loaded=LoadedModel(judge, self.config))
        return replace(self, start=start, checkpoints=self.checkpoints / JUDGE, read=self.pixels)

    def on_whole(self, judged: Made) -> Work:
        """The same on all images, as was decided."""
        assert self.start.source is not None
        assert self.pixels is not None
        start = replace(self.start, source=self.start.source.whole())
        return replace(self, start=start, judged=judged, read=self.pixels.whole())


@dataclass(frozen=True)
class Made:
    """What a step made.

    Attributes:
        before, after: figures beside those that are measured of every model.
        notes: for the record.
        result: fields of the step's own result.
        judge: what became of the model's judge.
        decided: by the judge, for the model.
        at: the work on it, where its images are of another size than those of the model that the step began with.
    """

    network: nn.Module
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    than: tuple[Mapping[str, Any] | None, str] | None = None  # what a large loss is measured from, if not from before
    judge: nn.Module | None = None
    decided: Any = None
    at: Work | None = None


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
        judge = judge_of(start.loaded, start.source)
        if judge is None and start.source is not None and start.source.refit:
            start = replace(start, source=start.source.whole())  # the model has seen them all
        at_work = Work(start, folder / CHECKPOINTS, progress)
        config, network = at_work.config, at_work.model if start.rehearsed is None else start.rehearsed
        rehearse(folder, network, config, run.record(done=False), judge=judge is not None)
        rehearse_too(folder, network)
        made, before, after = _worked(at_work, work) if judge is None else _worked_twice(at_work, work, judge)
        base, than = made.than or (before, "before")
        record = run.record(
            before=before, after=after, **made.notes, large_loss=large_loss(base, after, advice, than=than)
        )
        at = made.at or at_work
        config, pixels = at.config, at.pixels
        seen = None if start.source is None or pixels is None else seen_in(start.source, pixels)
        config = config.with_step(record, seen)
        if run.out is not None:
            config = save_model(folder, made.network, config, made.judge)
        return result(model=made.network, config=config, judge=made.judge, out=run.out, record=record, **made.result)


def judge_of(loaded: LoadedModel, source: Data | None) -> nn.Module | None:
    """What stands for the model before images that what is written is trained on in the end; None where nothing does.

    That is its judge, or the model itself, where it has not seen them yet.
    """
    if source is None or not source.refit:
        return None
    if loaded.judge is None and loaded.config.seen is not None:
        held_out = [source.hashes[i] for i in source.indices(VAL)]
        if any(loaded.config.seen.part_of(digest) in (TRAIN, FOLD) for digest in held_out):
            return None
    return loaded.model if loaded.judge is None else loaded.judge


def as_judged(loaded: LoadedModel, source: Data) -> LoadedModel:
    """The model with its judge's weights, where it has one for these images."""
    return replace(loaded, model=judge_of(loaded, source) or loaded.model)


Worked = tuple[Made, dict[str, Any] | None, dict[str, Any]]  # with metrics before and after


def _worked(at: Work, work: Callable[[Work], Made]) -> Worked:
    before = at.measure(at.model) if at.start.measured else None
    made = work(at)
    after = (made.at or at).measure(made.network) | dict(made.after)
    return made, None if before is None else before | dict(made.before), after


def _worked_twice(at: Work, work: Callable[[Work], Made], judge: nn.Module) -> Worked:
    """On the judge, whose answers to the validation images are reported, then on the model and all images."""
    judged, before, after = _worked(at.on_judge(judge), work)
    whole = at.on_whole(judged)
    made, were, are = _worked(whole, work)
    if were is not None and before is not None and VAL in before:
        were = were | {VAL: before[VAL]}
    if VAL in after:
        are = are | {VAL: after[VAL]}
    return replace(made, judge=judged.network, than=judged.than, at=judged.at), were, are


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
