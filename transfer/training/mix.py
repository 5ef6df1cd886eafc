"""Mixup and CutMix: a batch blended with itself in another order; a function of (seed, step) alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

STREAM = 0x6D6978  # keeps these draws apart from the order's (seed, epoch) and the augmentation's (seed, epoch, index)


def mix_batch(
    inputs: Tensor, labels: Tensor, *, classes: int, mixup: float, cutmix: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) inputs and (B,) labels to mixed inputs and (B, K) targets that sum to one.

    Mixup (Zhang et al. 2018, https://arxiv.org/abs/1710.09412, eq. 1) adds images in the shares l and 1 - l; CutMix
    (Yun et al. 2019, https://arxiv.org/abs/1905.04899, eq. 1 and 2) pastes a box of area 1 - l, and counts the pixels
    that it really covers. One l ~ Beta(alpha, alpha) and one partner for each image are drawn a step.

    Args:
        mixup, cutmix: their alphas; 0 switches one off, and with both on each step draws one of them.
    """
    targets = F.one_hot(labels, classes).to(inputs.dtype)
    if not (mixup or cutmix):
        return inputs, targets
    rng = np.random.default_rng((seed, step, 0, STREAM))
    cut = rng.random() < 0.5 if mixup and cutmix else bool(cutmix)
    alpha = cutmix if cut else mixup
    kept = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(labels))).to(inputs.device)
    if cut:
        top, bottom, left, right = _box(rng, kept, *inputs.shape[2:])
        mixed = inputs.clone()
        mixed[:, :, top:bottom, left:right] = inputs[partner, :, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / math.prod(inputs.shape[2:])
    else:
        mixed = torch.lerp(inputs[partner], inputs, kept)
    return mixed, torch.lerp(targets[partner], targets, kept)


def _box(rng: np.random.Generator, kept: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box with sides sqrt(1 - kept) of the image's about a uniform centre, clipped."""
    y, x = int(rng.integers(height)), int(rng.integers(width))
    half = 0.5 * math.sqrt(1 - kept)
    rows, columns = int(half * height), int(half * width)
    return max(y - rows, 0), min(y + rows, height), max(x - columns, 0), min(x + columns, width)
