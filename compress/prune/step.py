"""`slimzoo prune`: from one model directory to a smaller one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.distill.loss import Distillation, train_student
from compress.prune.importance import Taylor, l2_norm
from compress.prune.recalibrate import recalibrate_
from compress.prune.structured import Pruned, prune_channels
from compress.sparse.masks import attach_masks_, detach_masks_, hold_zeros
from compress.sparse.step import is_sparse
from transfer.data.dataset import open_for
from transfer.data.loader import LabelledPixels, Progress, batches
from transfer.data.parts import Pixels, measure, predictor_of, read_pixels
from transfer.training.augment import augment_for
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo import lineage
from zoo.artifact import LoadedModel, ModelConfig, load_model, save_model
from zoo.cost import count_parameters
from zoo.directory import CHECKPOINTS, check_free, new_directory
from zoo.errors import UsageError

RECOVERY_LR = 1e-3
TAYLOR_BATCHES = 16
BATCH = 32


@dataclass(frozen=True)
class Step:
    out: Path
    config: ModelConfig
    record: dict[str, Any]  # the step's lineage record
    pruned: Pruned


def prune(
    directory: str | Path,
    *,
    data: str | Path | None = None,
    macs: float = 0.5,
    recover: int = 8,
    out: str | Path,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Step:
    """Keep a share of the MACs, measure BatchNorm afresh, train again for `recover` epochs, and write `out`.

    Recovery learns from the labels and from what the unpruned model answers (see compress/distill/loss.py).

    Args:
        directory: a model directory, or, without `data` and with recover=0, "timm:NAME" or "torchvision:NAME".
        data: the data of the fit; needed for recovery and for accuracies.
        macs: share of the MACs to keep, in (0, 1].
        recover: epochs of the one training loop.

    Raises:
        UsageError: a share that cannot be reached, data of other classes, an int8 model.
        SlimzooError: the cut had no effect, or the model does not survive it.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite, resume=resume)
    if data is None and recover:
        raise UsageError("recovery needs images: name the model's with --data, or skip it with --recover 0")
    arguments = {
        "directory": str(directory), "data": None if data is None else str(data), "macs": macs, "recover": recover,
        "out": str(out), "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    loaded = load_model(directory)
    source = None if data is None else open_for(loaded.config.lineage, data, loaded.config.classes)
    with new_directory(out, run={"verb": "prune", "arguments": arguments}, overwrite=overwrite, resume=resume) as work:
        if progress is not None:
            progress("pruning", 0, 1, "")
        pixels = None if source is None else read_pixels(source, loaded.config.preprocess, progress)
        criterion = l2_norm if pixels is None else Taylor(loaded.model, _batches(pixels.train, loaded.config, seed))
        pruned = prune_channels(loaded.model, loaded.config.input_size, macs=macs, importance=criterion)
        before, after, network = _costs(loaded, pruned), None, pruned.model
        if source is not None and pixels is not None:
            before = _measured(loaded.model, loaded.config, pixels, progress)
            recalibrate_(network, loaded.model, pruned.cuts, pixels.train, loaded.config.preprocess, seed=seed)
            if recover:
                recipe = _recipe(_mirrored(loaded.config, source.mirror), recover, seed)
                training = TrainingData(pixels.train, pixels.val, loaded.config.preprocess)
                sparse = is_sparse(loaded.config.lineage)
                if sparse:
                    attach_masks_(network)
                network = train_student(
                    network, training, recipe, teacher=loaded.model, seen_by_teacher=loaded.config.preprocess,
                    how=Distillation(), after_step=hold_zeros if sparse else None,
                    checkpoints=work / CHECKPOINTS, progress=progress, title="recovery",
                ).model  # fmt: skip
                detach_masks_(network)
            after = _measured(network, loaded.config, pixels, progress)
        record = lineage.step(
            "prune", arguments, seed=seed, seconds=time.monotonic() - began,
            data=None if source is None else source.record(), before=before,
            after=after or {"params": count_parameters(network), "macs": pruned.macs_after},
        )  # fmt: skip
        config = save_model(work, network, loaded.config.with_step(record))
    return Step(out, config, record, pruned)


def _measured(model: nn.Module, config: ModelConfig, pixels: Pixels, progress: Progress | None) -> dict[str, Any]:
    return measure(predictor_of(model, config), model, config, pixels, progress)


def _costs(loaded: LoadedModel, pruned: Pruned) -> dict[str, Any]:
    return {"params": count_parameters(loaded.model), "macs": pruned.macs_before}


def _batches(train: LabelledPixels, config: ModelConfig, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches that the gradients of `Taylor` are averaged over."""
    for indices in batches(len(train), BATCH, seed=seed, epoch=0)[:TAYLOR_BATCHES]:
        inputs = torch.from_numpy(config.preprocess.normalize(train.pixels[indices]))
        yield inputs, torch.from_numpy(train.labels[indices])


def _mirrored(config: ModelConfig, default: bool) -> bool:
    """Whether the fit mirrored its images: `--flip` or `--no-flip` as it was given then, else what the data say."""
    given = [step["arguments"].get("flip") for step in config.lineage if step["verb"] == "fit"]
    return default if not given or given[-1] is None else bool(given[-1])


def _recipe(mirror: bool, epochs: int, seed: int) -> Recipe:
    return Recipe(epochs=epochs, lr=RECOVERY_LR, backbone_lr=RECOVERY_LR, augment=augment_for(mirror), seed=seed)
