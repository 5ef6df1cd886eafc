"""`slimzoo cluster`: from one model directory to one whose layers have few different weights."""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from compress.distill.loss import taught_by
from compress.mean_loss import few_of, mean_loss
from compress.recipe import recovery_recipe
from compress.share.cluster import Allotted, share_weights, values_for_bits
from compress.share.shared import different_values, shareable
from compress.sparse.masks import check_zeros, density, nonzeros
from compress.step import Step
from transfer.data.dataset import located, open_for
from transfer.data.loader import Progress
from transfer.data.parts import Pixels, measure, predictor_of, read_pixels
from transfer.training.finetune import TrainingData
from zoo import lineage
from zoo.artifact import LoadedModel, load_model, save_model
from zoo.directory import CHECKPOINTS, check_free, new_directory
from zoo.errors import SlimzooError


def cluster(
    directory: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    bits: float = 4.0,
    epochs: int = 4,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Step:
    """`slimzoo cluster`: let each layer's weights share a few values, more where it is sensitive, and train the values.

    Zeros stay zeros. What it saves shows in the coded file (`export --coded`); the directory is as large as before.

    Args:
        directory: a model directory.
        data: the data of the fit.
        bits: for each weight that is not zero, on average: 4 are 16 values for most tensors. Codebooks count too.
        epochs: of the one training loop, in which the shared values are trained.

    Raises:
        UsageError: too few bits; data of other classes; an int8 model.
        SlimzooError: the sharing or zeros were lost.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite, resume=resume)
    arguments = {
        "directory": located(directory), "data": located(data), "out": str(out), "bits": bits, "epochs": epochs,
        "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    loaded = load_model(directory)
    source = open_for(loaded.config, data)
    run = {"verb": "cluster", "arguments": arguments}
    with new_directory(out, run=run, overwrite=overwrite, resume=resume) as work:
        pixels = read_pixels(source, loaded.config.preprocess, progress)
        before = measure(predictor_of(loaded.model, loaded.config), loaded.model, loaded.config, pixels, progress)
        values = {name: given.values for name, given in _allotted(loaded, pixels, bits, progress).items()}
        shared = share_weights(
            loaded.model, TrainingData(pixels.train, pixels.val, loaded.config.preprocess),
            recovery_recipe(loaded.config, mirror=source.mirror, epochs=epochs, seed=seed), values,
            loss_fn=taught_by(loaded.model), checkpoints=work / CHECKPOINTS, progress=progress,
        )  # fmt: skip
        check_zeros(shared, nonzeros(loaded.model))
        found = _proved(shared, values)
        after = measure(predictor_of(shared, loaded.config), shared, loaded.config, pixels, progress)
        before["density"], after["density"] = density(loaded.model), density(shared)
        record = lineage.step(
            "cluster", arguments, seed=seed, seconds=time.monotonic() - began, data=source.record(), before=before,
            after=after, values=found,
        )  # fmt: skip
        config = save_model(work, shared, loaded.config.with_step(record))
    return Step(out, config, record)


def explain(
    directory: str | Path, *, data: str | Path, bits: float = 4.0, progress: Progress | None = None
) -> dict[str, Allotted]:
    """`slimzoo cluster --explain`: how many values each tensor would get, and what that costs; nothing is written.

    Raises:
        see `cluster`.
    """
    loaded = load_model(directory)
    source = open_for(loaded.config, data)
    return _allotted(loaded, read_pixels(source, loaded.config.preprocess, progress), bits, progress)


def _allotted(loaded: LoadedModel, pixels: Pixels, bits: float, progress: Progress | None) -> dict[str, Allotted]:
    """By the loss on validation images, or on training ones where there are no others."""
    images = few_of(pixels.train if pixels.val is None else pixels.val)
    return values_for_bits(loaded.model, bits, mean_loss(images, loaded.config.preprocess), progress=progress)


def _proved(model: nn.Module, values: dict[str, int]) -> dict[str, int]:
    tensors = shareable(model)
    found = {name: different_values(tensors[name]) for name in values}
    over = [name for name in values if found[name] > values[name]]
    if over:
        raise SlimzooError(f"{over[0]} has {found[over[0]]} different values, {values[over[0]]} were to be shared")
    return found
