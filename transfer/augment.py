"""Augmentation of a batch of tensors; what happens to an image is a function of (seed, epoch, index) alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far images are moved and recoloured. Zero switches a part off.

    Attributes:
        rotate_deg: uniform in [-rotate_deg, rotate_deg].
        scale: side lengths are multiplied by a log-uniform factor in [1 / (1 + scale), 1 + scale].
        shift: uniform in [-shift, shift] of the side, in both directions.
        flip: mirror left and right with probability 1/2.
        colour: brightness, contrast and saturation factors, uniform in [1 - colour, 1 + colour].
        grey: probability of dropping all colour.
    """

    rotate_deg: float = 10.0
    scale: float = 0.2
    shift: float = 0.1
    flip: bool = True
    colour: float = 0.3
    grey: float = 0.1


NONE = Augment(rotate_deg=0.0, scale=0.0, shift=0.0, flip=False, colour=0.0, grey=0.0)


def augment_for(mirror: bool) -> Augment:
    """The standard augmentation of photographs, or of written signs, which may not be mirrored and have no colour."""
    return Augment() if mirror else Augment(flip=False, colour=0.0, grey=0.0)


def augment_batch(pixels: Tensor, indices: NDArray[np.intp], augment: Augment, *, seed: int, epoch: int) -> Tensor:
    """(B, C, H, W) float pixels in 0..255 to the same, moved and recoloured.

    Args:
        indices: (B,) position of each image in the training set, which with seed and epoch decides its draw.
    """
    if augment == NONE:
        return pixels
    draws = np.stack([np.random.default_rng((seed, epoch, int(index))).random(9) for index in indices])
    u = torch.from_numpy(draws.astype(np.float32)).to(pixels.device)  # (B, 9) in [0, 1)
    centred = 2 * u - 1
    pixels = _affine(pixels, centred[:, :4], u[:, 4], augment)
    return _recolour(pixels, centred[:, 5:8], u[:, 8], augment)


def _affine(pixels: Tensor, move: Tensor, mirror: Tensor, augment: Augment) -> Tensor:
    if not (augment.rotate_deg or augment.scale or augment.shift or augment.flip):
        return pixels
    angle = move[:, 0] * math.radians(augment.rotate_deg)
    zoom = torch.exp(move[:, 1] * math.log1p(augment.scale))
    sign = torch.where(mirror < 0.5, -1.0, 1.0) if augment.flip else torch.ones_like(mirror)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift = 2 * augment.shift * move[:, 2:4]  # grid coordinates span -1..1
    rows = [torch.stack([sign * cos, -sin, shift[:, 0]], 1), torch.stack([sign * sin, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolour(pixels: Tensor, factors: Tensor, grey: Tensor, augment: Augment) -> Tensor:
    if not (augment.colour or augment.grey):
        return pixels
    brightness, contrast, saturation = (1 + augment.colour * factors).T.reshape(3, -1, 1, 1, 1)
    pixels = pixels * brightness
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = (pixels - mean) * contrast + mean
    if pixels.shape[1] == 3:
        weights = pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601 luma
        luma = (pixels * weights).sum(dim=1, keepdim=True)
        saturation = torch.where((grey < augment.grey).view(-1, 1, 1, 1), torch.zeros_like(saturation), saturation)
        pixels = (pixels - luma) * saturation + luma
    return pixels.clamp(0, 255)
