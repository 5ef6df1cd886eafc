"""The page of mistakes: which images are on it, in which order, and what is written beside them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from transfer.data.loader import LabelledPixels
from transfer.evaluation import mistakes
from transfer.evaluation.evaluate import Evaluation
from transfer.evaluation.mistakes import most_confident_mistakes, save_mistakes

CLASSES = ("cat", "dog", "owl")


def answers(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return Evaluation(rng.integers(0, 3, count), rng.normal(size=(count, 3)).astype(np.float32))


def grey_images(count, channels=3):
    """Image i is of the grey 4 i."""
    return np.broadcast_to((4 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, 8, 8, channels))


@pytest.fixture
def sheet(monkeypatch):
    """What was put on the page, instead of the page."""
    put = {}
    monkeypatch.setattr(
        mistakes, "save_contact_sheet", lambda tiles, path, *, title: put.update(tiles=tiles, title=title)
    )
    return put


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_the_most_confident_come_first(limit):
    found = answers()
    naive = sorted(
        (i for i in range(found.n) if found.labels[i] != found.predictions[i]),
        key=lambda i: -max(found.probabilities[i]),
    )
    assert most_confident_mistakes(found, limit) == naive[:limit]


@pytest.mark.parametrize("channels", [1, 3])
def test_each_tile_is_the_image_with_its_own_words(sheet, tmp_path, channels):
    found = answers()
    keys = tuple(f"/somewhere/{CLASSES[label]}/{i}.png" for i, label in enumerate(found.labels))
    save_mistakes(found, LabelledPixels(grey_images(60, channels), found.labels, keys), CLASSES, tmp_path / "m.png")
    wrong = int((found.labels != found.predictions).sum())
    assert wrong > 32 == len(sheet["tiles"])
    assert sheet["title"] == f"{wrong} mistakes among 60 images: the 32 most confident"
    for tile in sheet["tiles"]:
        said, truth, name = tile.caption.split("\n")
        i = int(name.removesuffix(".png"))
        assert tile.image.shape == (8, 8, 3)
        assert (tile.image == 4 * i).all()
        assert truth == f"is {CLASSES[found.labels[i]]}"
        assert said == f"{found.probabilities[i].max():.1%} {CLASSES[found.predictions[i]]}"


def test_without_mistakes_it_shows_the_least_confident_answers(sheet, tmp_path):
    found = answers()
    found = Evaluation(found.predictions, found.logits)
    save_mistakes(found, LabelledPixels(grey_images(60), found.labels), CLASSES, tmp_path / "m.png", limit=4)
    assert sheet["title"] == "no mistakes among 60 images; the answers with the least confidence"
    least = np.argsort(found.probabilities.max(axis=1))[:4]
    assert [tile.caption.split("\n")[1] for tile in sheet["tiles"]] == [f"image {i}" for i in least]
    assert not any(tile.colour for tile in sheet["tiles"])


def test_one_mistake_is_written_to_a_picture(tmp_path):
    labels = np.array([0, 1, 2, 2])
    found = Evaluation(labels, np.eye(3, dtype=np.float32)[[0, 1, 2, 0]])
    save_mistakes(found, LabelledPixels(grey_images(4), labels), CLASSES, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 16)}
    assert (12, 12, 12) in colours  # the fourth image
    assert (214, 39, 40) in colours  # its frame
    assert not {(4, 4, 4), (8, 8, 8)} & colours  # nothing that was answered right
