"""Recipe: everything about a training run that one could wish to change, as one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from transfer.augment import NONE, Augment
from zoo.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How `finetune` trains. The rates follow one cycle (Smith and Topin 2018, https://arxiv.org/abs/1708.07120).

    Attributes:
        epochs: passes over the training images.
        batch: images a step.
        lr: peak rate of the classifier, for AdamW.
        backbone_lr: peak rate of everything before it. Smaller, because it starts from good weights.
        warmup: share of the steps in which the rates rise linearly; then they fall to zero along a cosine.
        weight_decay: decoupled; biases, norms and other vectors are spared (He et al. 2018, arXiv 1812.01187, 3.1).
        label_smoothing: Szegedy et al. 2016, arXiv 1512.00567, sec. 7.
        freeze_statistics: keep BatchNorm's running statistics as they are and normalize by them while training.
            Batches of a small dataset estimate them badly, and the probe that the classifier starts from needs them.
        clip_norm: the gradient's norm is cut to this.
        augment: see `transfer.augment`.
        seed: of the order, the augmentation and dropout.
    """

    epochs: int = 8
    batch: int = 32
    lr: float = 1e-3
    backbone_lr: float = 5e-4
    warmup: float = 0.25
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    freeze_statistics: bool = True
    clip_norm: float = 5.0
    augment: Augment = field(default_factory=Augment)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1:
            raise UsageError(f"epochs={self.epochs} must be at least 0 and batch={self.batch} at least 1")
        if not (self.lr > 0 and self.backbone_lr >= 0):
            raise UsageError(f"lr={self.lr} must be above 0 and backbone_lr={self.backbone_lr} at least 0")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for run.json and checkpoints."""
        return asdict(self)


__all__ = ["NONE", "Augment", "Recipe"]
