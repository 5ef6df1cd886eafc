"""Pixels: what a plain loop over Pillow gives, decoded once for any name and any number of runs."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from transfer.data import loader
from transfer.data.dataset import open_data
from transfer.data.loader import LabelledPixels, load_pixels
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.create import create_model
from zoo.files.predictor import TorchPredictor
from zoo.image import ImageError, load_image
from zoo.models.lenet import TINY
from zoo.preprocess import Preprocess

SQUASH = Preprocess(size=(24, 20))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30 + i, 50, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def whole(folder):
    return open_data(folder, val=0.0, test=0.0)


def unread(data):
    """The same data, of which nothing may be decoded any more."""

    def read(index, least=None):
        raise AssertionError(f"{data.keys[index]} was decoded again")

    return replace(data, read=read)


def is_kept(data, preprocess, part="train"):
    try:
        load_pixels(unread(data), preprocess, part)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    "preprocess",
    [
        SQUASH,
        Preprocess(size=(20, 24), mode="crop", resize_to=28, interpolation="bilinear"),
        Preprocess(size=(20, 24), mode="pad", background=(1, 2, 3)),
        Preprocess(size=(20, 24), mean=(0.5,), std=(0.5,)),
    ],
)
def test_pixels_are_those_of_a_plain_loop(folder, preprocess):
    data = open_data(folder, val=0.25, test=0.25)
    for part in ("train", "val", "test"):
        first = load_pixels(data, preprocess, part)
        second = load_pixels(unread(data), preprocess, part)
        expected = [preprocess.resize(load_image(data.keys[i])) for i in data.indices(part)]
        for found in (first, second):
            np.testing.assert_array_equal(found.pixels, np.stack(expected))
            np.testing.assert_array_equal(found.labels, data.labels[data.indices(part)])
            assert found.keys == tuple(data.keys[i] for i in data.indices(part))
        assert first.digest == second.digest != ""


def test_content_counts_and_names_do_not(folder, tmp_path):
    first = load_pixels(whole(folder), SQUASH, "train")
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    for path in moved.rglob("*.png"):
        os.utime(path, (1, 1))
    assert is_kept(whole(moved), SQUASH)
    (moved / "a/0.png").rename(moved / "a/00.png")  # still first in order
    assert is_kept(whole(moved), SQUASH)
    shutil.copy(moved / "a/2.png", moved / "a/00.png")
    assert not is_kept(whole(moved), SQUASH)
    assert load_pixels(whole(moved), SQUASH, "train").digest != first.digest


def test_order_counts(folder):
    data = whole(folder)
    load_pixels(data, SQUASH, "train")
    turned = replace(data, keys=data.keys[::-1], hashes=data.hashes[::-1], labels=data.labels[::-1])
    assert not is_kept(turned, SQUASH)


def test_what_touches_no_pixel_does_not_count(folder):
    data = whole(folder)
    load_pixels(data, SQUASH, "train")
    assert is_kept(data, replace(SQUASH, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))
    relabelled = replace(data, labels=1 - data.labels)
    assert is_kept(relabelled, SQUASH)
    np.testing.assert_array_equal(load_pixels(relabelled, SQUASH, "train").labels, 1 - data.labels)
    for other in (
        replace(SQUASH, size=(20, 24)),
        replace(SQUASH, mode="pad"),
        replace(SQUASH, interpolation="bilinear"),
        replace(SQUASH, background=(0, 0, 0)),
        replace(SQUASH, mean=(0.5,), std=(0.5,)),
    ):
        assert not is_kept(data, other)


def test_version_of_the_rule_counts(folder, monkeypatch):
    data = whole(folder)
    load_pixels(data, SQUASH, "train")
    monkeypatch.setattr(loader, "PIXELS_VERSION", loader.PIXELS_VERSION + 1)
    assert not is_kept(data, SQUASH)


def test_arrays_go_the_same_way():
    data = open_data("digits")
    plain = Preprocess(size=(8, 8), mean=(0.5,), std=(0.5,))
    found = load_pixels(data, plain, "test")
    expected = np.stack([data.read(i)[..., :1] for i in data.indices("test")])
    np.testing.assert_array_equal(found.pixels, expected)
    assert is_kept(data, plain, "test")
    assert not is_kept(data, plain, "val")


def test_part_without_images(folder):
    found = load_pixels(whole(folder), SQUASH, "test")
    assert found.pixels.shape == (0, 24, 20, 3)
    assert len(found) == len(found.keys) == 0


def test_unreadable_image_is_named(folder, cache):
    (folder / "b/7.png").write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"b/7\.png: not an image"):
        load_pixels(whole(folder), SQUASH, "train")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_progress_ends_with_the_last_image(folder):
    told = []
    load_pixels(whole(folder), SQUASH, "train", lambda *line: told.append(line))
    assert told[-1] == ("reading train images", 40, 40, "")
    told.clear()
    load_pixels(whole(folder), SQUASH, "train", lambda *line: told.append(line))
    assert told == []


def test_memory_stays_flat(monkeypatch):
    """160 MB of pixels through blocks of 1 MB."""
    monkeypatch.setattr(loader, "BLOCK_BYTES", 1 << 20)
    grey = np.zeros((256, 256, 3), dtype=np.uint8)
    count = 800
    data = replace(
        open_data("digits"),
        keys=("k",) * count,
        hashes=("h",) * count,
        labels=np.zeros(count, dtype=np.int64),
        parts=np.full(count, "train"),
        read=lambda index, least=None: grey,
    )
    tracemalloc.start()
    try:
        found = load_pixels(data, Preprocess(size=(256, 256)), "train")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.pixels.nbytes == count * 256 * 256 * 3
    assert peak < 30e6


def test_read_only_pixels_disturb_nobody(folder):
    """Slices of a read-only map make torch.from_numpy warn, and warnings are errors here."""
    grey = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
    pixels = load_pixels(whole(folder), grey, "train")
    assert isinstance(pixels.pixels, np.memmap)
    model = create_model("lenet5", **TINY["lenet5"] | {"num_classes": 2})
    trained = finetune(model, TrainingData(pixels, pixels, grey), Recipe(epochs=1, batch=16)).model
    logits = TorchPredictor(trained, grey, ("a", "b")).logits(pixels.pixels)
    with torch.no_grad():
        expected = trained(torch.from_numpy(grey.normalize(pixels.pixels)))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_keys_and_digest_are_not_needed():
    plain = LabelledPixels(np.zeros((2, 4, 4, 3), dtype=np.uint8), np.zeros(2, dtype=np.int64))
    assert (plain.keys, plain.digest) == ((), "")


def test_some_of_the_images(folder):
    whole_part = load_pixels(whole(folder), SQUASH, "train")
    chosen = np.array([7, 3, 3, 30])
    found = whole_part.take(chosen)
    np.testing.assert_array_equal(found.pixels, np.stack([whole_part.pixels[i] for i in chosen]))
    np.testing.assert_array_equal(found.labels, [whole_part.labels[i] for i in chosen])
    assert found.keys == tuple(whole_part.keys[i] for i in chosen)
    digests = {whole_part.take(np.array(rows)).digest for rows in ([7, 3], [3, 7], [7], [37])}
    assert len(digests | {whole_part.digest}) == 5
    plain = LabelledPixels(whole_part.pixels, whole_part.labels).take(chosen)
    assert (plain.keys, plain.digest) == ((), "")
