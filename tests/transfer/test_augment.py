"""Augmentation against a loop over pixels, and as a function of (seed, epoch, index)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transfer.augment import NONE, Augment, augment_batch
from transfer.loader import batches

FULL = Augment(rotate_deg=20.0, scale=0.3, shift=0.2, flip=True, colour=0.4, grey=0.5)


def images(count=4, channels=3, side=7):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)) * 255


def sample(image, y, x):
    """Bilinear, the border repeated; (C, H, W) at pixel coordinates."""
    height, width = image.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = image[:, top, left] * (1 - dx) + image[:, top, right] * dx
    lower = image[:, bottom, left] * (1 - dx) + image[:, bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def naive(image, draw, a):
    """One image, one pixel at a time, from nine numbers in [0, 1)."""
    side = image.shape[-1]
    angle = math.radians(a.rotate_deg) * (2 * draw[0] - 1)
    zoom = (1 + a.scale) ** (2 * draw[1] - 1)
    shift_x, shift_y = (a.shift * (2 * draw[i] - 1) * side for i in (2, 3))
    moved = np.empty_like(image)
    for row in range(side):
        for column in range(side):
            x, y = column - (side - 1) / 2, row - (side - 1) / 2  # from the centre
            if a.flip and draw[4] < 0.5:
                x = -x
            from_x = (x * math.cos(angle) - y * math.sin(angle)) / zoom + shift_x
            from_y = (x * math.sin(angle) + y * math.cos(angle)) / zoom + shift_y
            moved[:, row, column] = sample(image, from_y + (side - 1) / 2, from_x + (side - 1) / 2)
    brightness, contrast, saturation = (1 + a.colour * (2 * draw[i] - 1) for i in (5, 6, 7))
    moved = moved * brightness
    moved = (moved - moved.mean()) * contrast + moved.mean()
    if len(moved) == 3:
        luma = 0.299 * moved[0] + 0.587 * moved[1] + 0.114 * moved[2]
        saturation = 0.0 if draw[8] < a.grey else saturation
        moved = luma + saturation * (moved - luma)
    return moved.clip(0, 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augment",
    [
        FULL,
        Augment(rotate_deg=30.0, scale=0.0, shift=0.0, flip=False, colour=0.0, grey=0.0),
        Augment(rotate_deg=0.0, scale=0.0, shift=0.3, flip=True, colour=0.0, grey=0.0),
        Augment(rotate_deg=0.0, scale=0.0, shift=0.0, flip=False, colour=0.5, grey=1.0),
    ],
)
def test_against_a_loop_over_pixels(augment, channels):
    pixels, indices = images(channels=channels), np.array([3, 11, 0, 7])
    found = augment_batch(pixels, indices, augment, seed=5, epoch=2).numpy()
    for image, index, result in zip(pixels.numpy(), indices, found, strict=True):
        draw = np.random.default_rng((5, 2, int(index))).random(9)
        np.testing.assert_allclose(result, naive(image.astype(np.float64), draw, augment), atol=0.01)


def test_none_is_the_identity():
    pixels = images()
    assert augment_batch(pixels, np.arange(4), NONE, seed=0, epoch=0) is pixels


def test_flip_alone_mirrors_or_does_nothing():
    pixels, flip = images(count=32), Augment(rotate_deg=0, scale=0, shift=0, flip=True, colour=0, grey=0)
    found = augment_batch(pixels, np.arange(32), flip, seed=0, epoch=0)
    mirrored = [torch.allclose(f, p.flip(-1), atol=0.01) for f, p in zip(found, pixels, strict=True)]
    same = [torch.allclose(f, p, atol=0.01) for f, p in zip(found, pixels, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 8 <= sum(mirrored) <= 24


def test_an_image_changes_with_seed_epoch_and_index_and_nothing_else():
    pixels, indices = images(), np.array([4, 9, 2, 6])
    first = augment_batch(pixels, indices, FULL, seed=1, epoch=1)
    torch.manual_seed(99)  # the global generator has no say
    np.random.seed(99)
    torch.testing.assert_close(augment_batch(pixels, indices, FULL, seed=1, epoch=1), first, rtol=0, atol=0)
    # nor has the place in the batch, nor its company
    order = [2, 0, 3]
    alone = augment_batch(pixels[order], indices[order], FULL, seed=1, epoch=1)
    torch.testing.assert_close(alone, first[order], rtol=1e-5, atol=1e-2)
    for change in ({"seed": 2, "epoch": 1}, {"seed": 1, "epoch": 2}):
        other = augment_batch(pixels, indices, FULL, **change)
        assert all(not torch.allclose(a, b, atol=1) for a, b in zip(other, first, strict=True))
    other = augment_batch(pixels, indices + 1, FULL, seed=1, epoch=1)
    assert all(not torch.allclose(a, b, atol=1) for a, b in zip(other, first, strict=True))


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (33, 32), (7, 100), (64, 8), (1, 1)])
def test_an_epoch_visits_every_image_once_in_batches_of_nearly_equal_size(count, batch):
    found = batches(count, batch, seed=0, epoch=3)
    assert sorted(np.concatenate(found).tolist()) == list(range(count))
    sizes = [len(part) for part in found]
    assert len(found) == math.ceil(count / batch)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


def test_order_changes_with_seed_and_epoch():
    orders = {tuple(batches(50, 50, seed=s, epoch=e)[0].tolist()) for s in range(2) for e in range(2)}
    assert len(orders) == 4
