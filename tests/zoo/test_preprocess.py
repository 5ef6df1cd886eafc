"""Preprocess against Pillow called by hand and against its formulas worked out separately."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from zoo.image import load_image
from zoo.preprocess import Preprocess, scaled

MODES = [{"mode": "squash"}, {"mode": "crop", "resize_to": 20}, {"mode": "pad", "background": (10, 200, 30)}]
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_hand(image, width, height, resampling=BICUBIC):
    """Rows are made narrower first, then columns shorter; Pillow takes either order, and rounds once in between."""
    narrow = Image.fromarray(image).resize((width, len(image)), resampling)
    return np.asarray(narrow.resize((width, height), resampling))


@pytest.mark.parametrize(("name", "resampling"), [("bicubic", BICUBIC), ("bilinear", BILINEAR)])
def test_squash_resizes_the_whole_image(name, resampling):
    image = picture(40, 25)
    found = Preprocess(size=(12, 18), interpolation=name).resize(image)
    np.testing.assert_array_equal(found, by_hand(image, 18, 12, resampling))
    at_once = np.asarray(Image.fromarray(image).resize((18, 12), resampling))
    assert np.abs(found.astype(int) - at_once).max() <= 2  # levels of 255


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (20, 20), (21, 64), (9, 31)])
def test_crop_resizes_the_short_side_and_cuts_the_centre(shape):
    image = picture(*shape)
    height, width = shape
    long_side = int(20 * max(shape) / min(shape) + 0.5)
    h, w = (20, long_side) if height <= width else (long_side, 20)
    top, left = (h - 16) // 2, (w - 16) // 2
    expected = by_hand(image, w, h)[top : top + 16, left : left + 16]
    found = Preprocess(size=(16, 16), mode="crop", resize_to=20).resize(image)
    np.testing.assert_array_equal(found, expected)


def test_pad_keeps_the_proportions_and_fills_with_the_background():
    image = picture(40, 20)
    found = Preprocess(size=(16, 16), mode="pad", background=(10, 200, 30)).resize(image)
    np.testing.assert_array_equal(found[:, 4:12], by_hand(image, 8, 16))
    assert (found[:, :4] == (10, 200, 30)).all()
    assert (found[:, 12:] == (10, 200, 30)).all()


def test_pad_of_a_sliver_keeps_at_least_one_pixel():
    found = Preprocess(size=(8, 8), mode="pad").resize(np.zeros((400, 1, 3), dtype=np.uint8))
    assert (found.reshape(-1, 3).sum(axis=1) == 0).sum() == 8  # one black column on white


@pytest.mark.parametrize("arguments", MODES)
def test_image_of_the_right_size_is_left_alone(arguments):
    image = picture(20, 20)
    np.testing.assert_array_equal(Preprocess(size=(20, 20), **arguments).resize(image), image)


def test_grey_is_pillows_luma_of_the_image():
    image = picture(30, 30)
    found = Preprocess(size=(10, 10), mean=(0.5,), std=(0.5,)).resize(image)
    assert found.shape == (10, 10, 1)
    np.testing.assert_array_equal(
        found[..., 0], np.asarray(Image.fromarray(image).convert("L").resize((10, 10), BICUBIC))
    )


def test_normalize_is_the_formula():
    p = Preprocess(size=(2, 3), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    pixels = picture(2, 3)[None]
    found = p.normalize(pixels)
    assert found.shape == (1, 3, 2, 3)
    assert found.dtype == np.float32
    for c, y, x in np.ndindex(3, 2, 3):
        assert found[0, c, y, x] == pytest.approx((pixels[0, y, x, c] / 255 - p.mean[c]) / p.std[c], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("length", "scale", "expected"), [(5, 0.5, 3), (4, 0.5, 2), (7, 0.5, 4), (3, 0.1, 1), (10, 2, 20)]
)
def test_a_half_is_rounded_up_and_nothing_vanishes(length, scale, expected):
    assert scaled(length, scale) == expected


def test_at_keeps_the_crops_share():
    p = Preprocess(size=(224, 224), mode="crop", resize_to=256).at(96)
    assert (p.size, p.resize_to) == ((96, 96), round(96 * 256 / 224))
    assert Preprocess(size=(224, 224)).at(64) == Preprocess(size=(64, 64))


@pytest.mark.parametrize("arguments", MODES)
def test_survives_json(arguments):
    p = Preprocess(size=(16, 12), interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25), **arguments)
    assert Preprocess.from_dict(json.loads(json.dumps(p.to_dict()))) == p


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 4)}, r"both at least 1"),
        ({"mode": "stretch"}, "'squash', 'crop', 'pad' or 'prepared'"),
        ({"interpolation": "nearest"}, "'bilinear' or 'bicubic'"),
        ({"antialias": False}, "not implemented"),
        ({"mode": "crop"}, "needs resize_to"),
        ({"resize_to": 40}, "'crop', and it alone"),
        ({"mode": "crop", "resize_to": 8}, "smaller than the crop"),
        ({"mean": (0.5,)}, "1 or 3 values"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(Preprocess(size=(16, 16)), **change)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"size": [8, 9], "mean": [0, 0, 0], "std": [1, 1, 1]}', {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ('{"size": [8.0, 9e0]}', {}),
        ('{"size": [8, 9], "mean": 0, "std": 1}', {"mean": (0.0,), "std": (1.0,)}),
        ('{"size": [8, 9], "mode": "crop", "resize_to": 9.0}', {"mode": "crop", "resize_to": 9}),
        ('{"size": [8, 9], "mode": "pad", "background": [0.0, 1, 2]}', {"mode": "pad", "background": (0, 1, 2)}),
    ],
)
def test_whole_numbers_are_numbers_in_json(text, expected):
    """And what is written of them and read again is the same, to the type of each value."""
    found, wanted = Preprocess.from_dict(json.loads(text)), Preprocess(size=(8, 9), **expected)
    assert repr(found) == repr(wanted) == repr(Preprocess.from_dict(json.loads(json.dumps(found.to_dict()))))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"size": ["8", 9]}, "whole numbers"),
        ({"size": [8.5, 9]}, "whole numbers"),
        ({"size": 8}, "height, width"),
        ({"size": None}, "whole numbers"),
        ({"size": [float("inf"), 8]}, "whole numbers"),
        ({"size": [8, 9], "mean": [0, 0, True], "std": [1, 1, 1]}, "mean=.* must be numbers"),
        ({"size": [8, 9], "mean": [0, 0, float("nan")], "std": [1, 1, 1]}, "finite"),
        ({"size": [8, 9], "mean": [0, 0, 0], "std": [1, 0, 1]}, "above 0"),
        ({"size": [8, 9], "background": [0, 0, 256]}, "background"),
        ({"size": [8, 9], "interpolation": ["bilinear"]}, "interpolation"),
    ],
)
def test_what_is_no_number_is_refused(record, said):
    with pytest.raises(ValueError, match=said):
        Preprocess.from_dict(record)


@pytest.mark.parametrize("arguments", [*MODES[::2], {"mode": "crop", "resize_to": 73}])
@pytest.mark.parametrize("shape", [(800, 600), (600, 800), (120, 110), (320, 1504)])
def test_what_is_decoded_at_least_is_enough(arguments, shape):
    """Of a photograph, whose neighbouring pixels are alike, twice the size is as good as all of it.

    A length that the part does not divide is rounded up, and the picture stretched by less than one of those pixels.
    """
    height, width = shape
    rough = Image.fromarray(picture(1 + height // 16, 1 + width // 16) // 2 + 64)
    file = io.BytesIO()
    rough.resize((width, height), BICUBIC).save(file, "JPEG", quality=95)
    preprocess = Preprocess(size=(64, 64), **arguments)
    less, full = load_image(file.getvalue(), least=preprocess.least), load_image(file.getvalue())
    assert (less.shape != full.shape) == (shape != (120, 110))
    found, expected = (preprocess.resize(image).astype(int) for image in (less, full))
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2


def test_what_is_prepared_is_not_decoded():
    assert Preprocess.prepared((3, 8, 8)).least is None
