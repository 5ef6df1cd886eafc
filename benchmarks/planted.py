"""Duplicates planted among real images, to see how many are found and what else is taken for one.

Used by tests/transfer/test_duplicates.py and benchmarks/bench_data.py.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfer.data.duplicates import duplicate_pairs, group_ids
from transfer.data.thumbnails import thumbnails
from zoo.image import load_image

TILE = 106  # pixels: a photograph of 427 x 640 is 24 of them, which do not overlap
SAME = 1.0  # levels by which the same picture, drawn or saved twice, differs on average at most
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX)
KINDS = ("exact", "recompressed or resized", "mirrored")


@dataclass(frozen=True)
class Copy:
    """A planted duplicate: its file's bytes, the position of its original, one of KINDS, and how it was made."""

    content: bytes
    original: int
    kind: str
    how: str


@dataclass(frozen=True)
class Outcome:
    """What came of one planting.

    Attributes:
        found: of each kind, copies that are in one group with their original.
        missed: how those that are not were made, and of what.
        false: positions of images in one group with an image that is neither planted nor the same picture.
        known: positions of images whose same picture (straight or mirrored) was in the collection before.
        images: how many there are, copies included.
    """

    found: dict[str, int]
    missed: tuple[tuple[int, str], ...]
    false: tuple[int, ...]
    known: tuple[int, ...]
    images: int


def photographs() -> list[bytes]:
    """scikit-learn's china.jpg and flower.jpg in tiles, as PNG."""
    from sklearn.datasets import load_sample_images

    tiles = []
    for photo in load_sample_images().images:
        for y in range(0, photo.shape[0] - TILE + 1, TILE):
            tiles += [_encoded(photo[y : y + TILE, x : x + TILE]) for x in range(0, photo.shape[1] - TILE + 1, TILE)]
    return tiles


def emoji(folder: Path) -> list[bytes]:
    """Every drawing of a folder, laid over white, as PNG."""
    return [_encoded(load_image(path)) for path in sorted(folder.glob("*/*.png"))]


def plant(originals: Sequence[bytes], *, each: int, seed: int) -> list[Copy]:
    """`each` copies of every kind, of originals drawn without repetition."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(originals), 3 * each, replace=False).tolist()
    copies = []
    for number, index in enumerate(chosen):
        kind = KINDS[number % 3]
        content, how = originals[index], "the same bytes"
        if kind == "mirrored":
            content, how = _recompressed(load_image(content)[:, ::-1], rng, least=75)
        elif kind == "recompressed or resized":
            remake = (_recompressed, _resized)[int(rng.integers(2))]
            content, how = remake(load_image(content), rng)
        copies.append(Copy(content, index, kind, how))
    return copies


def find(originals: Sequence[bytes], copies: Sequence[Copy]) -> Outcome:
    """Look for duplicates among all of them as `data check` and the split of `fit` do."""
    files = [*originals, *(copy.content for copy in copies)]
    hashes = [hashlib.sha256(content).hexdigest() for content in files]
    pairs = duplicate_pairs(hashes, thumbnails(hashes, lambda index, least=None: load_image(files[index], least=least)))
    groups = group_ids(len(files), pairs)
    first = len(originals)
    hits = [groups[first + i] == groups[copy.original] for i, copy in enumerate(copies)]
    same = same_pictures([load_image(content) for content in originals])
    truth = [*same, *(same[copy.original] for copy in copies)]
    kinds_of: dict[int, set[int]] = defaultdict(set)
    for group, picture in zip(groups, truth, strict=True):
        kinds_of[group].add(picture)
    sizes = np.bincount(same, minlength=first)
    return Outcome(
        found={kind: sum(h for h, copy in zip(hits, copies, strict=True) if copy.kind == kind) for kind in KINDS},
        missed=tuple((copy.original, copy.how) for h, copy in zip(hits, copies, strict=True) if not h),
        false=tuple(i for i, group in enumerate(groups) if len(kinds_of[group]) > 1),
        known=tuple(i for i in range(first) if sizes[same[i]] > 1),
        images=len(files),
    )


def same_pictures(images: Sequence[NDArray[np.uint8]]) -> list[int]:
    """For each image the first that has the same picture, straight or mirrored: by comparing them all."""
    first = list(range(len(images)))
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        by_shape[image.shape].append(i)
    for members in by_shape.values():
        stack = np.stack([images[i] for i in members]).astype(np.float32)
        means = stack.mean(axis=(1, 2, 3))  # of the same picture these differ by SAME at most
        for row, i in enumerate(members):
            later = row + 1 + np.flatnonzero(np.abs(means[row + 1 :] - means[row]) <= SAME)
            for other in later.tolist():
                difference = min(np.abs(stack[other] - side).mean() for side in (stack[row], stack[row][:, ::-1]))
                if difference <= SAME:
                    first[members[other]] = first[i]
    return first


def _recompressed(image: NDArray[np.uint8], rng: np.random.Generator, least: int = 30) -> tuple[bytes, str]:
    quality, fmt = int(rng.integers(least, 91)), ("JPEG", "WEBP")[int(rng.integers(2))]
    return _encoded(image, fmt, quality=quality), f"{fmt} at quality {quality}"


def _resized(image: NDArray[np.uint8], rng: np.random.Generator) -> tuple[bytes, str]:
    scale, resample = float(rng.uniform(0.5, 2)), FILTERS[int(rng.integers(len(FILTERS)))]
    picture = Image.fromarray(image)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), resample)
    return _encoded(np.asarray(small)), f"{resample.name.lower()} to {scale:.2f} of its size"


def _encoded(image: NDArray[np.uint8], fmt: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, fmt, **options)
    return file.getvalue()
