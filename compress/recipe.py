"""The recipe of a training that follows a compression step: after a cut, while weights go to zero, of shared values."""

from __future__ import annotations

from typing import Any

from transfer.training.augment import augment_for
from transfer.training.recipe import Recipe
from zoo.artifact import ModelConfig

LR = 1e-3


def recovery_recipe(config: ModelConfig, *, mirror: bool, epochs: int, seed: int) -> Recipe:
    """Of a model that is taught by what it was before: the labels as they are, since the teacher smooths them.

    Args:
        mirror: whether the data's images may be mirrored, where the fit was not told.
    """
    return Recipe(
        epochs=epochs, lr=LR, backbone_lr=LR, weight_decay=0.0, label_smoothing=0.0, warmup=0.1,
        augment=augment_for(mirrored_as_fitted(config, mirror)), seed=seed,
    )  # fmt: skip


def mirrored_as_fitted(config: ModelConfig, default: bool) -> bool:
    """Whether the fit mirrored its images: `--flip` or `--no-flip` as it was given then, else what the data say."""
    given = last_fit(config).get("arguments", {}).get("flip")
    return default if given is None else bool(given)


def last_fit(config: ModelConfig) -> dict[str, Any]:
    """Its record in the lineage; empty where the model was never fitted."""
    fits = [step for step in config.lineage if step["verb"] == "fit"]
    return fits[-1] if fits else {}
