"""The training images over which a criterion averages gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from transfer.data.loader import LabelledPixels, batches
from zoo.preprocess import Preprocess

BATCH = 32
BATCHES = 16


def gradient_batches(train: LabelledPixels, preprocess: Preprocess, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Up to 16 batches of inputs (32, C, H, W) and labels (32,), in the order of the first epoch of that seed."""
    for indices in batches(len(train), BATCH, seed=seed, epoch=0)[:BATCHES]:
        inputs = torch.from_numpy(preprocess.normalize(train.pixels[indices]))
        yield inputs, torch.from_numpy(train.labels[indices])
