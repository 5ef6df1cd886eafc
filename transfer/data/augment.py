"""Augmentation of a batch of tensors; what happens to an image is a function of (seed, epoch, index) alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import UsageError

DRAWS = 9  # numbers an image takes for place and colour
MORE_DRAWS = 8  # and for erasing (5), blurring (2) and hue (1), drawn after the nine, so that they do not move them
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# RGB to YIQ (NTSC 1953); hue is the angle in the plane of I and Q
YIQ = (LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
KNOTS = 5  # along each side, of the grid whose points an elastic deformation moves
ERASED = (0.02, 0.4)  # share of the image; Zhong et al. 2020, https://arxiv.org/abs/1708.04896, sec. 4.1
ERASED_ASPECT = 0.3  # height over width is between this and its inverse; ibid.
BLUR_SIGMA = (0.1 / 224, 2.0 / 224)  # of the side; Chen et al. 2020 (SimCLR), https://arxiv.org/abs/2002.05709, app. A


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far images are moved and recoloured. Zero switches a part off.

    Attributes:
        rotate_deg: uniform in [-rotate_deg, rotate_deg].
        scale: side lengths are multiplied by a log-uniform factor in [1 / (1 + scale), 1 + scale].
        shift: uniform in [-shift, shift] of the side, in both directions.
        flip: mirror left and right with probability 1/2.
        elastic: parts of the image are moved apart: the points of a coarse grid by normal draws of this standard
            deviation, a share of the side, and the pixels between them smoothly (Simard, Steinkraus and Platt 2003,
            sec. 2; the grid is that of Ronneberger et al. 2015, arXiv 1505.04597, sec. 3.1). For written signs: a pen's
            strokes bend, most photographed things do not.
        colour: brightness, contrast and saturation factors, uniform in [1 - colour, 1 + colour].
        grey: probability of dropping all colour.
        hue_deg: colours are turned about the grey axis by an angle uniform in [-hue_deg, hue_deg]; their luma stays.
        blur: probability of a Gaussian blur, of a standard deviation up to 1% of the side.
        erase: probability that a box of 2% to 40% of the image is filled with its mean colour (Zhong et al. 2020).

    Raises:
        UsageError: a value out of its range.
    """

    rotate_deg: float = 10.0
    scale: float = 0.2
    shift: float = 0.1
    flip: bool = True
    elastic: float = 0.0
    colour: float = 0.3
    grey: float = 0.1
    hue_deg: float = 0.0
    blur: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (
            ("rotate_deg", 180),
            ("scale", 9),
            ("shift", 1),
            ("elastic", 1),
            ("colour", 1),
            ("grey", 1),
            ("hue_deg", 180),
            ("blur", 1),
            ("erase", 1),
        ):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UsageError(f"augment: {name}={value} must be in [0, {most}]")


NONE = Augment(rotate_deg=0.0, scale=0.0, shift=0.0, flip=False, colour=0.0, grey=0.0)


def augment_for(mirror: bool, *, few: bool = False, tiny: bool = False) -> Augment:
    """The standard augmentation of photographs, or of written signs, which may not be mirrored and have no colour.

    Args:
        few: there are few images, so each is moved and recoloured further (Steiner et al. 2021, arXiv 2106.10270: the
            fewer the images, the more augmentation is worth).
        tiny: images are so small that they shift by 4 of 32 pixels (He et al. 2016, arXiv 1512.03385, sec. 4.2).
    """
    return Augment(
        rotate_deg=15.0 if few else 10.0,
        scale=0.3 if few else 0.2,
        shift=0.125 if few or tiny else 0.1,
        flip=mirror,
        colour=(0.4 if few else 0.3) if mirror else 0.0,
        grey=0.1 if mirror else 0.0,
    )


def augment_batch(pixels: Tensor, indices: NDArray[np.intp], augment: Augment, *, seed: int, epoch: int) -> Tensor:
    """(B, C, H, W) float pixels in 0..255 to the same, moved, recoloured, blurred and erased.

    Args:
        indices: (B,) position of each image in the training set, which with seed and epoch decides its draw.
    """
    if augment == NONE:
        return pixels
    more = bool(augment.hue_deg or augment.blur or augment.erase)
    count = DRAWS + MORE_DRAWS * more
    generators = [np.random.default_rng((seed, epoch, int(index))) for index in indices]
    draws = np.stack([generator.random(count) for generator in generators])
    numbers = torch.from_numpy(draws.astype(np.float32)).to(pixels.device)  # (B, count) in [0, 1)
    # the nine lie in memory as they do alone: a vector's sine and a single number's may differ in the last bit
    u, extra = numbers[:, :DRAWS].contiguous(), numbers[:, DRAWS:]
    bent = None
    if augment.elastic:  # drawn after all others, so that it does not move them
        knots = np.stack([generator.standard_normal((2, KNOTS, KNOTS), np.float32) for generator in generators])
        bent = _displacement(torch.from_numpy(knots).to(pixels.device), pixels.shape[2:], augment.elastic)
    pixels = _move(pixels, 2 * u[:, :4] - 1, u[:, 4], bent, augment)
    pixels = _recolour(pixels, u, extra[:, 7:], augment)
    if augment.blur:
        pixels = _blur(pixels, extra[:, 5], extra[:, 6], augment.blur)
    if augment.erase:
        pixels = _erase(pixels, extra[:, :5], augment.erase)
    return pixels


def _displacement(knots: Tensor, size: Sequence[int], elastic: float) -> Tensor:
    """(B, 2, K, K) normal draws, x and y, to (B, H, W, 2) in grid coordinates; the outermost are at the corners."""
    spread = F.interpolate(knots, size=tuple(size), mode="bicubic", align_corners=True)
    return (2 * elastic * spread).permute(0, 2, 3, 1)


def _move(pixels: Tensor, move: Tensor, mirror: Tensor, bent: Tensor | None, augment: Augment) -> Tensor:
    """One resampling for all that moves: an affine map and, added to where it reads, the displacement."""
    if bent is None and not (augment.rotate_deg or augment.scale or augment.shift or augment.flip):
        return pixels
    angle = move[:, 0] * math.radians(augment.rotate_deg)
    zoom = torch.exp(move[:, 1] * math.log1p(augment.scale))
    sign = torch.where(mirror < 0.5, -1.0, 1.0) if augment.flip else torch.ones_like(mirror)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift = 2 * augment.shift * move[:, 2:4]  # grid coordinates span -1..1
    # F.affine_grid's coordinates as what a column gives plus what a row gives, one pass instead of a matrix product;
    # x + iy is one complex number, so that the pass runs along rows
    height, width = pixels.shape[2:]
    x, y = ((2 * torch.arange(side, device=pixels.device) + 1) / side - 1 for side in (width, height))
    of_column = torch.complex((sign * cos)[:, None] * x, (sign * sin)[:, None] * x)  # (B, W)
    of_row = torch.complex(shift[:, :1] - sin[:, None] * y, shift[:, 1:] + cos[:, None] * y)  # (B, H)
    grid = torch.view_as_real(of_column[:, None, :] + of_row[:, :, None])  # (B, H, W, 2)
    if bent is not None:
        grid = grid + bent
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _recolour(pixels: Tensor, u: Tensor, hue: Tensor, augment: Augment) -> Tensor:
    """Brightness, contrast, saturation and hue are linear in a pixel's channels: one matrix and one offset an image."""
    if not (augment.colour or augment.grey or augment.hue_deg):
        return pixels
    channels = pixels.shape[1]
    brightness, contrast, saturation = (1 + augment.colour * (2 * u[:, 5:8] - 1)).T  # (B,) each
    offset = (1 - contrast) * brightness * pixels.mean(dim=(1, 2, 3))
    gain = brightness * contrast
    if channels != 3:
        return pixels.mul(gain.view(-1, 1, 1, 1)).add_(offset.view(-1, 1, 1, 1)).clamp_(0, 255)
    saturation = torch.where(u[:, 8] < augment.grey, 0.0, saturation)
    luma = pixels.new_tensor(LUMA).expand(3, 3)
    matrix = luma + saturation.view(-1, 1, 1) * (torch.eye(3, device=pixels.device) - luma)  # (B, 3, 3)
    if augment.hue_deg:
        matrix = _hue_rotation((2 * hue[:, 0] - 1) * math.radians(augment.hue_deg)) @ matrix
    matrix = matrix * gain.view(-1, 1, 1)
    mixed = torch.baddbmm(offset.view(-1, 1, 1), matrix, pixels.flatten(2))  # rows of each matrix keep grey grey
    return mixed.view(pixels.shape).clamp_(0, 255)


def _hue_rotation(angle: Tensor) -> Tensor:
    """(B,) radians to (B, 3, 3): RGB to YIQ, turned in the plane of I and Q, and back; grey stays as it is."""
    to_yiq = angle.new_tensor(YIQ)
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    turned: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return turned


def _blur(pixels: Tensor, gate: Tensor, strength: Tensor, probability: float) -> Tensor:
    """A separable Gaussian over the images whose gate is below the probability, the border repeated."""
    chosen = torch.nonzero(gate < probability).flatten()
    if not len(chosen):
        return pixels
    low, high = (share * min(pixels.shape[2:]) for share in BLUR_SIGMA)
    sigma = low + (high - low) * strength[chosen]
    radius = max(1, math.ceil(3 * high))
    places = torch.arange(-radius, radius + 1, device=pixels.device)
    kernel = torch.softmax(-(places**2) / (2 * sigma[:, None] ** 2), dim=1)  # (n, taps), sums to one
    count, channels = len(chosen), pixels.shape[1]
    kernel = kernel.repeat_interleave(channels, 0)[:, None, None]  # (n * C, 1, 1, taps)
    image = pixels[chosen].reshape(1, count * channels, *pixels.shape[2:])
    image = F.pad(image, (radius,) * 4, mode="replicate")
    image = F.conv2d(image, kernel, groups=count * channels)
    image = F.conv2d(image, kernel.transpose(2, 3), groups=count * channels)
    blurred = pixels.clone()
    blurred[chosen] = image.view(count, channels, *pixels.shape[2:])
    return blurred


def _erase(pixels: Tensor, u: Tensor, probability: float) -> Tensor:
    """A box of random area, aspect and place in the image's mean colour, where the first number is below it."""
    height, width = pixels.shape[2:]
    least, most = ERASED
    area = (least + (most - least) * u[:, 1]) * height * width
    aspect = torch.exp((2 * u[:, 2] - 1) * -math.log(ERASED_ASPECT))
    tall, wide = (area * aspect).sqrt().round().clamp(1, height), (area / aspect).sqrt().round().clamp(1, width)
    top, left = (u[:, 3] * (height - tall + 1)).floor(), (u[:, 4] * (width - wide + 1)).floor()
    rows, columns = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])  # (B, H)
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])  # (B, W)
    erased = (u[:, 0] < probability)[:, None, None] & in_rows[:, :, None] & in_columns[:, None, :]
    return torch.where(erased[:, None], pixels.mean(dim=(2, 3), keepdim=True), pixels)
