"""What a method of fitting works on, and what it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transfer.data.loader import LabelledPixels
from transfer.data.parts import Pixels
from transfer.evaluation.calibration import cross_entropies, fit_temperature
from transfer.evaluation.evaluate import Evaluation, evaluate_pixels
from transfer.evaluation.measure import predictor_of
from transfer.fitting.settings import Method
from transfer.fitting.tail import Views
from transfer.frozen.features import frozen_features
from transfer.training.average import averaged
from transfer.training.finetune import Epoch, TrainingData
from transfer.training.recipe import Recipe
from zoo.classifier import classifier
from zoo.files.model_directory import ModelConfig
from zoo.progress import Progress

Trains = Literal["finetune", "scratch"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a method works on.

    Attributes:
        network: its classifier fresh; methods work on copies.
        config: of that network.
        recipe: what a method that trains by gradients does; `find_lr` replaces its rates by a range test's.
        deadline: of `time.monotonic`, by which such a method ends with what it has learned by then; None sets none.
        checkpoints: where training keeps its state, and resumes from.
        tell: told one line at a time what a person should know.
        taps: let the classifier see several depths of the network, where a method can (`zoo.models.tapped`).
        decided: the recipe, where it has been planned and tried before on some of these images.
        views: of images that the trunk of the network has seen, see `transfer.fitting.tail`.
        tail: whether the tail alone is trained, where that has been decided too.
        asked: whether the epochs are what somebody asked for.
        drawn: whether the validation images were drawn from those to train on, and will be trained on in the end.
    """

    network: nn.Module
    config: ModelConfig
    pixels: Pixels
    recipe: Callable[[Trains], Recipe]
    find_lr: bool
    deadline: float | None
    seed: int
    checkpoints: Path
    progress: Progress | None
    tell: Callable[[str], None]
    taps: bool = True
    decided: Recipe | None = None
    views: Views = field(default_factory=dict)
    tail: bool | None = None
    asked: bool = False
    drawn: bool = False

    @property
    def classes(self) -> int:
        assert self.config.classes is not None
        return len(self.config.classes)

    @property
    def training_data(self) -> TrainingData:
        return TrainingData(self.pixels.train, self.pixels.val, self.config.preprocess)


@dataclass(frozen=True)
class Unseen:
    """Answers to training images of solutions that were found without them.

    Attributes:
        right: (n,); none where no class has two images.
        loss: their mean cross-entropy.
        folds: in how many parts the images were left out, one after the other.
    """

    right: NDArray[np.bool_]
    loss: float
    folds: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a method made.

    Attributes:
        model: in eval mode, on the CPU.
        config: of that model, which may differ from the task's: prototypes see more of the network.
        history: of the epochs, where there were any.
        notes: for the lineage record.
        recipe: of the training, where there was any; its epochs are those in which the model has learned.
        start: what a fine-tuning began with, the probe's model.
        share: how far this is on the way from there to what was trained; see `averaged`.
        judge: the same without the validation images, where this was trained on them; see `transfer.fitting.refit`.
        unseen: of it, or of what a fine-tuning began with.
        expected: the accuracy on new images, for the lineage; see `transfer.fitting.refit`.
    """

    method: Method
    model: nn.Module
    config: ModelConfig
    history: list[Epoch] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    start: nn.Module | None = None
    share: float = 1.0
    judge: nn.Module | None = None
    unseen: Unseen | None = None
    expected: dict[str, Any] | None = None

    @property
    def judged(self) -> Outcome:
        """What validation images may be shown to: the judge, where there is one."""
        return self if self.judge is None else replace(self, model=self.judge)

    def averaged(self, share: float) -> Outcome:
        """What lies on the line from the start to what was trained; see `transfer.training.average`."""
        if self.start is None or share == 1:
            return self
        mean = averaged(self.start, self.model, share)
        return replace(self, model=mean, share=share, notes={**self.notes, "share": share})

    def evaluate(self, images: LabelledPixels, progress: Progress | None) -> Evaluation:
        """The model's answers; those of a linear classifier on frozen features are made from the cached features."""
        if self.method in ("prototype", "probe") and isinstance(classifier(self.model), nn.Linear):
            found = frozen_features(self.model, images, self.config.preprocess, progress=progress)
            with torch.inference_mode():
                return Evaluation(images.labels, classifier(self.model)(torch.tensor(found)).numpy())
        predictor = predictor_of(self.model, self.config)
        return evaluate_pixels(predictor, images, len(self.config.classes or ()), progress=progress)


def calibrated_losses(found: Evaluation) -> NDArray[np.float64]:
    """(n,) cross-entropies of answers whose confidences are as right as one temperature can make them."""
    return cross_entropies(found.logits / fit_temperature(found.logits, found.labels), found.labels)


def calibrated_loss(found: Evaluation) -> float:
    """Their mean."""
    return float(calibrated_losses(found).mean())
