"""The recipe of a training that follows a compression step: after a cut, while weights go to zero, of shared values."""

from __future__ import annotations

from typing import Any

from transfer.data.augment import augment_for
from transfer.training.recipe import Recipe
from zoo.files.model_directory import ModelConfig

LR = 1e-3


def recovery_recipe(config: ModelConfig, *, mirror: bool, epochs: int, seed: int) -> Recipe:
    """Make the recipe of a model that is taught by what it was before; its teacher smooths the labels.

    BatchNorm learns its statistics anew where the fit learned them from these images, and keeps them where they are
    borrowed. Sparsified, validation images, statistics kept / learned / kept and each norm's moments then set to what
    they were: ResNet-20 from scratch on digits, a tenth of its weights, 12 epochs, 98.6 / 99.2 / 98.9%, loss 0.086 /
    0.021 / 0.061; a pretrained EfficientNet-Lite0 on emoji, a fifth, 6 epochs, 82.0 / 80.6 / 79.8%, loss 0.574 / 0.563
    / 0.626 (one seed).

    Args:
        mirror: whether the data's images may be mirrored, where the fit was not told.
    """
    return Recipe(
        epochs=epochs,
        lr=LR,
        backbone_lr=LR,
        weight_decay=0.0,
        label_smoothing=0.0,
        warmup=0.1,
        freeze_statistics=not from_scratch(config),
        augment=augment_for(mirrored_as_fitted(config, mirror)),
        seed=seed,
    )


def mirrored_as_fitted(config: ModelConfig, default: bool) -> bool:
    """Whether the fit mirrored its images: `--flip` or `--no-flip` as it was given then, else what the data say."""
    given = last_fit(config).get("arguments", {}).get("flip")
    return default if given is None else bool(given)


def from_scratch(config: ModelConfig) -> bool:
    """Whether the model's last fit began with random weights."""
    return last_fit(config).get("method") == "scratch"


def last_fit(config: ModelConfig) -> dict[str, Any]:
    """Its record in the lineage; empty where the model was never fitted."""
    fits = [step for step in config.lineage if step["verb"] == "fit"]
    return fits[-1] if fits else {}
