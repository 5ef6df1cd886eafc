"""The recipe of a fit: what goes by the images and the network, and in it what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfer.data.parts import Pixels
from transfer.fitting.task import Trains
from transfer.training.recipe import Recipe
from transfer.training.settings import with_settings
from zoo.files.model_directory import ModelConfig


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
        len(pixels.train),
        min(config.preprocess.size),
        classes=len(config.classes or ()),
        mirror=mirror,
        method=kind,
        epochs=given.get("epochs", epochs),
        batch=given.get("batch", batch) or Recipe.batch,
        lr=lr,
        seed=seed,
        **optimizer,
        layer_norm=bool(norms) and all(issubclass(norm, nn.LayerNorm) for norm in norms),
    )
    return with_settings(standard, given)
