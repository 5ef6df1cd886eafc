"""Augmentation against a loop over pixels, and as a function of (seed, epoch, index)."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch

from transfer.data.augment import BLUR_SIGMA, NONE, Augment, augment_batch, augment_for
from transfer.data.loader import batches

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


def keys_cubic(x, a=-0.75):
    """Keys 1981, eq. 4, with the a that PyTorch documents."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def between_knots(knots, y, x):
    """The field at (y, x) in [0, 1], from a grid over the image's corners, the border repeated."""
    last = len(knots) - 1
    y, x, field = y * last, x * last, 0.0
    for row in range(math.floor(y) - 1, math.floor(y) + 3):
        for column in range(math.floor(x) - 1, math.floor(x) + 3):
            weight = keys_cubic(y - row) * keys_cubic(x - column)
            field += weight * knots[min(max(row, 0), last), min(max(column, 0), last)]
    return field


def test_elastic_against_a_loop_over_pixels():
    side, share, indices = 9, 0.05, np.array([3, 11])
    pixels = images(count=2, side=side)
    found = augment_batch(pixels, indices, Augment(**OFF, elastic=share), seed=5, epoch=2).numpy()
    for image, index, result in zip(pixels.numpy(), indices, found, strict=True):
        generator = np.random.default_rng((5, 2, int(index)))
        generator.random(9)
        knots = generator.standard_normal((2, 5, 5), np.float32) * share * side  # pixels
        for row in range(side):
            for column in range(side):
                dx, dy = (between_knots(field, row / (side - 1), column / (side - 1)) for field in knots)
                np.testing.assert_allclose(result[:, row, column], sample(image, row + dy, column + dx), atol=0.01)


def test_elastic_moves_as_far_as_it_says_and_leaves_the_other_draws_alone():
    """The mean of a ramp's squared changes is the displacements' variance; only the strokes bend, not the colours."""
    side, indices = 32, np.arange(300)
    ramp = torch.arange(side).float().expand(300, 1, side, side).contiguous()
    inside = (slice(None), slice(None), slice(8, 24), slice(8, 24))  # away from the border
    moved = (augment_batch(ramp, indices, Augment(**OFF, elastic=0.03), seed=0, epoch=0) - ramp)[inside]
    assert 0.4 < float(moved.square().mean().sqrt()) / (0.03 * side) < 1.1  # between knots, draws average out
    assert abs(float(moved.mean())) < 0.1 * 0.03 * side
    grey = torch.full((6, 3, 8, 8), 77.0)
    coloured = [augment_batch(grey, np.arange(6), Augment(elastic=e), seed=0, epoch=0) for e in (0.0, 0.1)]
    torch.testing.assert_close(coloured[1], coloured[0], rtol=1e-5, atol=1e-3)


OFF = {"rotate_deg": 0.0, "scale": 0.0, "shift": 0.0, "flip": False, "colour": 0.0, "grey": 0.0}


def draws(indices, seed=0, epoch=0):
    return np.stack([np.random.default_rng((seed, epoch, int(i))).random(17) for i in indices])


def test_new_parts_draw_after_the_nine_and_leave_their_effect_alone():
    """An image that is neither erased nor blurred has the same bits as without these options."""
    pixels, indices = images(count=24, side=16), np.arange(24)
    plain = augment_batch(pixels, indices, Augment(), seed=0, epoch=0)
    more = augment_batch(pixels, indices, Augment(erase=0.4, blur=0.4), seed=0, epoch=0)
    numbers = draws(indices)
    spared = (numbers[:, 9] >= 0.4) & (numbers[:, 14] >= 0.4)
    assert 0 < spared.sum() < 24
    for a, b, same, gate in zip(plain, more, spared, numbers[:, 9], strict=True):
        assert torch.equal(a, b) or not same
        assert not (torch.equal(a, b) and gate < 0.4)  # a blur may be too faint to show, a box is not
    # the first nine numbers are those of a generator that is asked for nine
    assert (numbers[3, :9] == np.random.default_rng((0, 0, 3)).random(9)).all()


def test_erasing_fills_one_box_with_the_images_mean_colour():
    side, count = 40, 200
    pixels, indices = images(count=count, side=side), np.arange(count)
    found = augment_batch(pixels, indices, Augment(**OFF, erase=0.5), seed=0, epoch=0)
    shares, aspects = [], []
    for image, result, gate in zip(pixels, found, draws(indices)[:, 9], strict=True):
        changed = (image != result).any(0)
        assert bool(changed.any()) == (gate < 0.5)
        if not changed.any():
            continue
        rows, columns = (axis.flatten() for axis in torch.where(changed))
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert height * width == int(changed.sum())
        torch.testing.assert_close(result[:, changed], image.mean((1, 2))[:, None].expand(3, height * width))
        shares.append(height * width / side**2)
        if max(height, width) < side:
            aspects.append(height / width)
    assert 0.015 < min(shares) < 0.06  # Zhong et al. 2020: 2% to 40%
    assert 0.3 < max(shares) < 0.42
    assert 0.25 < min(aspects) < 0.6
    assert 1.7 < max(aspects) < 4.0


def test_blur_is_torchvisions_away_from_the_border():
    from torchvision.transforms.v2 import functional as tv

    side, indices = 128, np.arange(6)
    pixels = images(count=6, side=side)
    found = augment_batch(pixels, indices, Augment(**OFF, blur=0.7), seed=0, epoch=0)
    low, high = (side * share for share in BLUR_SIGMA)
    radius = math.ceil(3 * high)
    blurred = 0
    for image, result, numbers in zip(pixels, found, draws(indices), strict=True):
        if numbers[14] >= 0.7:
            assert torch.equal(image, result)
            continue
        blurred += 1
        expected = tv.gaussian_blur(image, [2 * radius + 1] * 2, [low + (high - low) * numbers[15]] * 2)
        inside = (slice(None), slice(radius, -radius), slice(radius, -radius))
        torch.testing.assert_close(result[inside], expected[inside], rtol=1e-4, atol=1e-2)
    assert 0 < blurred < 6


def test_hue_turns_colours_and_keeps_luma_and_grey():
    turned = Augment(**OFF, hue_deg=30.0)
    indices = np.arange(12)
    colour = (
        torch.tensor([150.0, 110.0, 100.0]).view(1, 3, 1, 1).expand(12, 3, 4, 4)
    )  # mild: nothing is cut at 0 or 255
    found = augment_batch(colour, indices, turned, seed=0, epoch=0)
    luma = (found * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    expected = 0.299 * 150 + 0.587 * 110 + 0.114 * 100
    torch.testing.assert_close(luma, torch.full_like(luma, expected), rtol=1e-4, atol=1e-2)

    def angle(rgb):
        _, i, q = colorsys.rgb_to_yiq(*(float(c) / 255 for c in rgb))
        return math.degrees(math.atan2(q, i))

    for image, numbers in zip(found, draws(indices), strict=True):
        wanted = 30 * (2 * numbers[16] - 1)
        assert angle(image[:, 0, 0]) - angle(colour[0, :, 0, 0]) == pytest.approx(wanted, abs=2)
    grey = torch.full((12, 3, 4, 4), 77.0)
    torch.testing.assert_close(augment_batch(grey, indices, turned, seed=0, epoch=0), grey, rtol=1e-4, atol=1e-2)
    one = images(count=12, channels=1)
    torch.testing.assert_close(augment_batch(one, indices, turned, seed=0, epoch=0), one)


def test_everything_at_once_is_a_function_of_seed_epoch_and_index():
    everything = Augment(hue_deg=20.0, blur=0.5, erase=0.5, elastic=0.05)
    pixels, indices = images(count=6, side=20), np.array([4, 9, 2, 6, 1, 0])
    first = augment_batch(pixels, indices, everything, seed=1, epoch=1)
    order = [5, 2, 0]
    alone = augment_batch(pixels[order], indices[order], everything, seed=1, epoch=1)
    torch.testing.assert_close(alone, first[order], rtol=1e-5, atol=1e-2)
    last = augment_batch(pixels.contiguous(memory_format=torch.channels_last), indices, everything, seed=1, epoch=1)
    torch.testing.assert_close(last, first, rtol=1e-5, atol=1e-2)
    assert (first >= 0).all()
    assert (first <= 255).all()


def test_wide_images_are_moved_as_a_grid_of_their_own():
    """Height and width apart: against torch's affine_grid."""
    pixels = torch.rand(3, 3, 6, 14, generator=torch.Generator().manual_seed(0)) * 255
    moved = Augment(**{**OFF, "rotate_deg": 30.0, "shift": 0.2, "flip": True})
    found = augment_batch(pixels, np.arange(3), moved, seed=0, epoch=0)
    for image, result, u in zip(pixels, found, draws(range(3)), strict=True):
        angle, sign = math.radians(30 * (2 * u[0] - 1)), -1 if u[4] < 0.5 else 1
        cos, sin, x, y = math.cos(angle), math.sin(angle), 0.4 * (2 * u[2] - 1), 0.4 * (2 * u[3] - 1)
        theta = torch.tensor([[[sign * cos, -sin, x], [sign * sin, cos, y]]], dtype=torch.float32)
        grid = torch.nn.functional.affine_grid(theta, [1, 3, 6, 14], align_corners=False)
        expected = torch.nn.functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-2)


def test_few_images_are_moved_further():
    assert augment_for(True) == Augment()
    few, usual = augment_for(True, few=True), augment_for(True)
    assert (few.rotate_deg, few.scale, few.colour) > (usual.rotate_deg, usual.scale, usual.colour)


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
