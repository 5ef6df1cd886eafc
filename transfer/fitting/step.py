"""`fit`: a pretrained model onto a dataset, as one model directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import nn

from transfer.data.contact_sheet import printable
from transfer.data.dataset import open_data
from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.data.remarks import check_readable, files_left_out, leaks_and_contradictions, where_to_look
from transfer.data.sources import Data
from transfer.data.split import TRAIN, VAL
from transfer.evaluation.calibration import fit_temperature, fold_temperature_
from transfer.evaluation.measure import metrics
from transfer.evaluation.metrics import EXPECTED
from transfer.fitting.auto import auto
from transfer.fitting.methods import METHODS, tapped
from transfer.fitting.pictures import LOGS, shown, write_curves, write_pictures
from transfer.fitting.recipe import recipe_for
from transfer.fitting.refit import WHOLE, fit_twice
from transfer.fitting.settings import Fit
from transfer.fitting.start import check, planned_start, start
from transfer.fitting.task import Outcome, Task, Trains
from transfer.result import ModelResult
from transfer.training.distributed import barrier, from_main, is_main, main_first, world_size
from transfer.training.finetune import Epoch
from transfer.training.recipe import Recipe
from transfer.training.settings import with_settings
from transfer.training.tensorboard import TensorboardLog, check_tensorboard
from transfer.verbs import FIT
from zoo.call import Call, takes
from zoo.classifier import has_classifier
from zoo.errors import UsageError, first_line
from zoo.files.directory import partial_of
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import ModelConfig, save_model
from zoo.files.rehearsal import rehearsal, rehearse
from zoo.progress import Progress
from zoo.run import Run


@dataclass(frozen=True, kw_only=True)
class Fitted(ModelResult):
    def lines(self) -> list[str]:
        size, method = self.config.preprocess.size[0], self.record["method"]
        said = [f"{self.name}: {self.record['arguments']['model']} at {size} px by {method}, {self.after}"]
        if (expected := self.after.expected) is not None:
            low, high = expected.top1_ci
            said.append(
                f"expect {expected.top1:.1%} of new images to be answered right (95% interval {low:.1%} to "
                f"{high:.1%}): cross-validated on {expected.n} images"
            )
        if "images" in self.record["notes"].get(WHOLE, {}):
            images = self.record["notes"][WHOLE]["images"]
            said.append(
                f"trained on all {images} images in the end; val is of its judge, which had not seen those, and by "
                "which later steps are compared"
            )
        return said

    def next(self) -> list[list[str | Path]]:
        data, out = self.record["arguments"]["data"], self.name
        new = self.after.val or self.after.test
        held_out: list[list[str | Path]] = [["slimzoo", "eval", out, data]] if new else []
        return [
            *held_out,
            ["slimzoo", "predict", out, "IMAGE"],
            ["slimzoo", "prune", out, "--data", data, "--out", f"{out}-pruned"],
            ["slimzoo", "export", out],
        ]


@takes(FIT)
def fit(data: str | Path | Data, settings: Fit, call: Call) -> Fitted:
    """Fit a model to labelled images and write `out`.

    Args:
        data: see `transfer.data.sources`.
        settings: see `Fit`.

    Raises:
        UsageError, DataError: see `open_data`, `create_model`, `new_directory`, `zoo.pretrained.load.fetch`.
    """
    begun, progress, tell = monotonic(), call.progress, call.tell
    run = call.run(makes=is_main())
    _check(settings, call.out)
    with main_first():  # what is downloaded, decoded and computed once is in the cache for the others
        source = _opened(data, settings, progress)
        remarks = files_left_out(source)
        for line in [*source.notes, *remarks]:
            tell(printable(line))
        torch.manual_seed(settings.seed)
        network, config = start(settings.model, source, settings.method, settings.size, progress)
    run.data = source.record()
    fitted = None
    with _shared_directory(run) as work:
        if is_main():
            _rehearse(work, network, config, run, settings, judge=source.refit)
        with main_first():
            pixels = read_pixels(source, config.preprocess, progress)
            if is_main():
                for line in _doubts(data, source, pixels, remarks, settings):
                    tell(line)
        task = Task(
            network=network,
            config=config,
            pixels=pixels,
            recipe=_recipes(network, pixels, config, settings, source),
            find_lr=settings.lr == "find",
            deadline=None if settings.time_s is None else begun + settings.time_s,
            seed=settings.seed,
            checkpoints=work / CHECKPOINTS,
            progress=progress,
            tell=tell,
            taps=settings.taps,
            asked=settings.epochs is not None or "epochs" in settings.settings,
        )
        method = auto if settings.method == "auto" else METHODS[settings.method]
        outcome = fit_twice(task, method) if source.refit else method(task)
        if is_main():
            fitted = _saved(work, run, outcome, task, source, tensorboard=settings.tensorboard)
    result = from_main(lambda: fitted)
    assert result is not None
    return result


@dataclass(frozen=True)
class Planned:
    """What a fit would do."""

    data: Data
    said: str

    def lines(self) -> list[str]:
        return [self.said]

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"classes": len(self.data.classes), **self.data.sizes()}


@takes(FIT)
def plan(data: str | Path | Data, settings: Fit, call: Call) -> Planned:
    """What `fit` would do, refusing what it would refuse; nothing is fetched or trained.

    Raises:
        see `fit`.
    """
    call.run()
    _check(settings, call.out)
    opened = _opened(data, settings, call.progress)
    check_readable(opened, call.progress)
    _, preprocess = planned_start(settings.model, opened, settings.method, settings.size)
    remarks = [*files_left_out(opened), *leaks_and_contradictions(opened, {})]
    for line in [*opened.notes, *remarks, *_where(data, remarks, settings)]:
        call.tell(printable(line))
    sizes = ", ".join(f"{count} {part}" for part, count in opened.sizes().items())
    return Planned(
        opened,
        f"would run {settings.method} of {settings.model} on {data} ({len(opened.classes)} "
        f"classes; {sizes} images) at {preprocess.size[0]} px, into {call.out}",
    )


def _check(settings: Fit, out: str | Path | None) -> None:
    """Refuse what no recipe and no model takes, whatever the images."""
    recipe = Recipe(
        epochs=Recipe.epochs if settings.epochs is None else settings.epochs,
        batch=Recipe.batch if settings.batch is None else settings.batch,
        lr=settings.lr if isinstance(settings.lr, float) else Recipe.lr,
        seed=settings.seed,
    )
    with_settings(recipe, settings.settings)
    if settings.tensorboard:
        check_tensorboard()
    if out is None and world_size() > 1:
        raise UsageError("several processes fit into a directory: name it with out=")
    check(settings.model, settings.method, settings.size)


def _opened(data: str | Path | Data, settings: Fit, progress: Progress | None) -> Data:
    if isinstance(data, Data):
        return data
    return open_data(
        data, val=settings.val, test=settings.test, seed=settings.seed, layout=settings.layout, progress=progress
    )


def _doubts(data: str | Path | Data, source: Data, pixels: Pixels, remarks: list[str], settings: Fit) -> list[str]:
    doubts = leaks_and_contradictions(source, pixels.parts())
    return [*doubts, *_where(data, [*remarks, *doubts], settings)]


def _where(data: str | Path | Data, remarks: list[str], settings: Fit) -> list[str]:
    if isinstance(data, Data):
        return []
    return where_to_look(
        remarks, data, val=settings.val, test=settings.test, seed=settings.seed, layout=settings.layout
    )


def _recipes(
    network: nn.Module, pixels: Pixels, config: ModelConfig, settings: Fit, source: Data
) -> Callable[[Trains], Recipe]:
    """The recipe of each method that trains."""

    def recipe(kind: Trains) -> Recipe:
        return recipe_for(
            network,
            pixels,
            config,
            kind,
            mirror=source.mirror if settings.flip is None else settings.flip,
            epochs=settings.epochs,
            batch=settings.batch,
            lr=settings.lr if isinstance(settings.lr, float) else None,
            seed=settings.seed,
            settings=settings.settings,
        )

    return recipe


@contextmanager
def _shared_directory(run: Run) -> Iterator[Path]:
    """The directory to work in, made and finished by the main process, for all."""
    if is_main():
        with run.directory() as work:
            barrier()
            yield work
    else:
        assert run.out is not None
        barrier()
        yield partial_of(run.out)


def _rehearse(work: Path, network: nn.Module, config: ModelConfig, run: Run, settings: Fit, *, judge: bool) -> None:
    """Before anything is decoded or trained, what the fit will write: the model in the method's form, and pictures."""
    network, config = tapped(network, config, taps=settings.taps and settings.method != "scratch")
    rehearse(work, network, config, run.record(done=False, after=metrics(network, config, {})), judge=judge)
    with rehearsal(work, "pictures") as folder:
        history = [Epoch(epoch=number, train_loss=1.0 / number, val_top1=0.5, seconds=1.0) for number in (1, 2)]
        write_curves(folder, history)
        if settings.tensorboard:
            with TensorboardLog(folder / LOGS) as log:
                log.write(history, None)


def _saved(work: Path, run: Run, outcome: Outcome, task: Task, source: Data, *, tensorboard: bool) -> Fitted:
    """The model calibrated, measured and written, and pictures of it."""
    pixels = task.pixels
    outcome = _calibrated(outcome, pixels, task.progress)
    found = {
        part: (outcome.judged if part == VAL else outcome).evaluate(images, task.progress)
        for part, images in pixels.parts().items()
        if part != TRAIN
    }
    after = metrics(outcome.model, outcome.config, found)
    if outcome.expected is not None:
        after[EXPECTED] = outcome.expected
    record = run.record(after=after, method=outcome.method, notes=outcome.notes)
    config = outcome.config.with_step(record, seen_in(source, pixels))
    if run.out is not None:
        config = save_model(work, outcome.model, config, outcome.judge)
        try:
            write_pictures(work, outcome, shown(found, pixels, source), task, tensorboard=tensorboard)
        except Exception as error:  # the packages' own kinds; the model, which is written, is worth more
            task.tell(f"not all pictures were drawn ({first_line(error)}); the model is whole")
    return Fitted(model=outcome.model, config=config, judge=outcome.judge, out=run.out, record=record)


def _calibrated(outcome: Outcome, pixels: Pixels, progress: Progress | None) -> Outcome:
    """Its classifier divided by the temperature at which validation images are answered with the right confidence."""
    if pixels.val is None or not has_classifier(outcome.model):
        return outcome
    before = outcome.judged.evaluate(pixels.val, progress)
    temperature = fit_temperature(before.logits, before.labels)
    for model in {outcome.model, outcome.judge or outcome.model}:
        fold_temperature_(model, temperature)
    calibration = {"temperature": round(temperature, 6), "val_ece_before": round(before.ece, 6)}
    return replace(outcome, notes={**outcome.notes, "calibration": calibration})
