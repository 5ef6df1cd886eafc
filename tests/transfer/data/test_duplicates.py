"""Planted copies are found and different drawings are not; the fast search agrees with comparing all pairs."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import numpy as np
import planted
import pytest
from PIL import Image

from transfer.data import thumbnails as thumbnails_module
from transfer.data.duplicates import Pair, duplicate_pairs, find_duplicates, group_ids, near_pairs
from transfer.data.thumbnails import keep, recall, thumbnail, thumbnails
from zoo.image import ImageError

EMOJI = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji")


def picture(seed, height=64, width=64):
    """Smooth random colours: a photograph out of focus."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def resized(image, height, width):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def pairs_of(images, **options):
    hashes = [hashlib.sha256(image.tobytes() + bytes(str(image.shape), "ascii")).hexdigest() for image in images]
    return find_duplicates(hashes, lambda i, least=None: images[i], **options)


def test_each_kind_of_copy_is_found_and_named():
    image = picture(0)
    images = [image, picture(1), image, resized(image, 40, 90), picture(2), image[:, ::-1]]
    pairs = pairs_of(images)
    assert pairs[:2] == [Pair(0, 2, "equal"), Pair(0, 3, "near")]
    assert pairs[2] in (Pair(0, 5, "mirrored"), Pair(3, 5, "mirrored"))  # of a group, any n - 1 pairs that link it
    assert len(pairs) == 3


def test_a_change_in_one_place_makes_another_image():
    """A dark spot of a twentieth of the side in each direction: the root mean square alone would not see it."""
    image = np.full((160, 160, 3), 250, dtype=np.uint8)
    image[40:120, 40:120] = (200, 30, 30)
    changed = image.copy()
    changed[72:88, 72:88] = (30, 200, 30)
    assert pairs_of([image, changed]) == []
    slightly = image.copy()
    slightly[72:88, 72:88] = (190, 40, 40)
    assert [pair.kind for pair in pairs_of([image, slightly])] == ["near"]


def test_symmetric_image_is_no_copy_of_itself():
    image = picture(3)
    both = np.maximum(image, image[:, ::-1])
    assert pairs_of([both]) == []


def test_tiny_and_plain_images_are_compared_by_content_alone():
    plain, tiny = np.full((64, 64, 3), 200, dtype=np.uint8), picture(4, 15, 40)
    images = [plain, plain + np.uint8(1), tiny, tiny[:, ::-1], plain, tiny]
    assert pairs_of(images) == [Pair(0, 4, "equal"), Pair(2, 5, "equal")]
    assert thumbnail(tiny) is None
    assert thumbnail(picture(4, 16, 40)).shape == (16, 16, 3)


def by_all_pairs(pictures):
    """The written rule, one pair at a time, in float64."""
    luma_of = np.array([0.299, 0.587, 0.114])
    found = set()
    for i, one in enumerate(pictures.astype(float)):
        for j, other in enumerate(pictures[:i].astype(float)):
            contrast = min(np.sqrt(np.mean([p[..., c].var() for c in range(3)])) for p in (one, other))
            for side in (other, other[:, ::-1]):
                luma, blue, red = (
                    (one - side) @ w for w in (luma_of, ([-0.168736, -0.331264, 0.5]), ([0.5, -0.418688, -0.081312]))
                )
                if (
                    contrast >= 2
                    and np.sqrt((luma**2).mean()) <= min(1 + 0.1 * contrast, 0.2 * contrast)
                    and max(np.abs(luma).max(), np.abs(blue).max(), np.abs(red).max()) <= 25
                ):
                    found.add((j, i))
    return found


@pytest.mark.parametrize("block", [3, 256])
def test_fast_search_is_comparing_all_pairs(block, monkeypatch):
    monkeypatch.setattr("transfer.data.duplicates.BLOCK", block)
    rng = np.random.default_rng(0)
    pictures = [thumbnail(picture(seed)).astype(int) for seed in range(20)]
    for noise in (2, 6, 10, 14, 20):
        chosen = rng.integers(0, 20, 8)
        pictures += [
            pictures[i][:, :: rng.choice([1, -1])] + rng.normal(0, noise, (16, 16, 3)).round().astype(int)
            for i in chosen
        ]
    stack = np.clip(np.stack(pictures), 0, 255).astype(np.uint8)
    stack[30:36] = stack[30:36] // 8 + 100  # little contrast
    expected = by_all_pairs(stack)
    assert 10 < len(expected) < 200
    linking = [Pair(min(i, j), max(i, j), "near") for i, j, _ in near_pairs(stack)]
    assert {(pair.first, pair.second) for pair in linking} <= expected
    every = [Pair(i, j, "near") for i, j in expected]
    assert group_ids(len(stack), linking) == group_ids(len(stack), every)
    assert len(linking) == len(stack) - len(set(group_ids(len(stack), linking)))


def test_groups_reach_over_others():
    pairs = [Pair(1, 4, "near"), Pair(3, 4, "near"), Pair(0, 2, "equal")]
    assert group_ids(6, pairs) == [0, 1, 0, 1, 1, 5]


def test_many_equal_images_are_linked_not_multiplied():
    images = [picture(0) // 2 + np.uint8(i % 3) for i in range(300)]
    hashes = [f"{i:064}" for i in range(300)]
    pairs = duplicate_pairs(hashes, {digest: thumbnail(image) for digest, image in zip(hashes, images, strict=True)})
    assert len(pairs) == 299
    assert set(group_ids(300, pairs)) == {0}


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_photographs_are_found(seed):
    """The 48 tiles of two photographs, and 3 x 8 copies."""
    originals = planted.photographs()
    outcome = planted.find(originals, planted.plant(originals, each=8, seed=seed))
    assert sum(outcome.found.values()) == 24
    assert outcome.false == ()


@pytest.mark.slow
@pytest.mark.skipif(not EMOJI.is_dir(), reason=f"no {EMOJI}: set SLIMZOO_DATA to the folder that holds emoji/")
def test_planted_emoji_are_found():
    """The bar is 148 of 150, and fewer than 1% of the images taken for another one's copy."""
    originals = [*planted.emoji(EMOJI / "google"), *planted.photographs()]
    outcome = planted.find(originals, planted.plant(originals, each=50, seed=7))
    assert sum(outcome.found.values()) >= 148
    assert len(outcome.false) < 0.01 * outcome.images
    assert len(outcome.known) > 50  # flags of France and its islands, families that differ in name alone


def test_images_are_decoded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    images, asked = [picture(i) for i in range(5)] + [picture(9, 8, 8)], []
    hashes = [f"{i:064}" for i in range(6)]

    def read(index, least=None):
        asked.append(index)
        return images[index]

    told = []
    first = thumbnails(hashes, read, progress=lambda *line: told.append(line))
    assert sorted(asked) == list(range(6))
    assert told[-1] == ("looking for duplicates", 6, 6, "")
    again = thumbnails([*hashes[::-1], hashes[0]], read)
    assert sorted(asked) == list(range(6))
    assert first.keys() == again.keys() == set(hashes[:5])
    assert all((first[digest] == again[digest]).all() for digest in first)
    assert recall(hashes)[hashes[5]] is None


def test_unreadable_images_are_left_to_who_needs_them():
    def read(index, least=None):
        raise ImageError("broken.png: truncated")

    assert thumbnails(["e" * 64], read) == {}


@pytest.mark.parametrize("damage", ["junk", "another table", "a folder"])
def test_damaged_cache_is_no_error(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    path = tmp_path / f"thumbnails-{thumbnails_module.VERSION}.sqlite"
    if damage == "junk":
        path.write_bytes(b"junk" * 1000)
    elif damage == "a folder":
        path.mkdir()
    else:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE thumbnails (other TEXT)")
        connection.close()
    keep({"a" * 64: thumbnail(picture(0))})
    assert recall(["a" * 64]) == {}
    assert len(thumbnails(["a" * 64], lambda index, least=None: picture(0))) == 1
