"""The loss by which sensitivities are measured: of a group that is cut alone, of a tensor that is shared alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from transfer.data.loader import LabelledPixels
from zoo.files.predictor import TorchPredictor
from zoo.preprocess import Preprocess

IMAGES = 512


def few_of(images: LabelledPixels) -> LabelledPixels:
    """About 512 of the images, evenly spread."""
    return images.take(np.arange(0, len(images), max(1, len(images) // IMAGES)))


def mean_loss(images: LabelledPixels, preprocess: Preprocess) -> Callable[[nn.Module], float]:
    """Model -> mean cross-entropy on the images, which says more about a few hundred than their accuracy does."""
    labels = torch.from_numpy(images.labels)

    def loss(model: nn.Module) -> float:
        logits = TorchPredictor(model.eval(), preprocess, None).logits(images.pixels)
        return float(F.cross_entropy(torch.from_numpy(logits).double(), labels))

    return loss
