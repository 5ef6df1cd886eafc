"""Recovery: a model that was cut learns its answers back from the labels and from the model as it was before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from compress.distill.loss import Distillation, train_student
from compress.recipe import recovery_recipe
from compress.sparse.masks import attach_masks_, detach_masks_, hold_zeros
from transfer.data.loader import Progress
from transfer.data.parts import Pixels
from transfer.plan import planned
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo.artifact import LoadedModel, ModelConfig

# ResNet-20 on digits, cut to a quarter of its MACs, 288 steps: 97.5% with 1e-3 and frozen statistics, 98.9% with 3e-3
# and learned ones; EfficientNet-Lite0 on emoji: 76.7% and 79.6% of the validation images (one seed each).
LR = 3e-3


def recipe_after_cut(config: ModelConfig, *, mirror: bool, epochs: int, seed: int) -> Recipe:
    """`recovery_recipe`, but faster, and BatchNorm learns the statistics of the smaller network."""
    recipe = recovery_recipe(config, mirror=mirror, epochs=epochs, seed=seed)
    return replace(recipe, lr=LR, backbone_lr=LR, freeze_statistics=False)


def recover(
    network: nn.Module,
    taught_by: LoadedModel,
    pixels: Pixels,
    recipe: Recipe,
    *,
    how: Distillation | None = None,
    sparse: bool = False,
    checkpoints: Path,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[nn.Module, dict[str, Any]]:
    """A trained copy of `network`, and notes for the lineage: the recipe and what the preflight found.

    Args:
        taught_by: the model before it was cut.
        sparse: whether what is zero stays zero.
        checkpoints: where this training's are kept.
    """
    data = TrainingData(pixels.train, pixels.val, taught_by.config.preprocess)
    recipe, notes = planned(
        network, data, recipe, checkpoints=checkpoints, probe_initialized=True, progress=progress, tell=tell
    )
    if sparse:
        attach_masks_(network)
    trained = train_student(
        network, data, recipe, teacher=taught_by.model, seen_by_teacher=taught_by.config.preprocess,
        how=how or Distillation(), after_step=hold_zeros if sparse else None, checkpoints=checkpoints,
        progress=progress, title="recovery",
    ).model  # fmt: skip
    detach_masks_(trained)
    return trained, {"recipe": recipe.to_dict(), **notes}
