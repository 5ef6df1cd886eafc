"""What a small task is, and its division by a seed into what is trained on and what is kept back.

Pictures that transfer.data.duplicates finds alike, and those that are one thing in several forms (the skins of an
emoji, the states of a texture), are in one part; where they carry two labels, they are in neither.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from task_sources import Picture

from transfer.data.duplicates import Pair, find_duplicates, group_ids
from transfer.data.thumbnails import thumbnail
from zoo.image import load_image

Kind = Literal["photograph", "scan", "drawing", "digits"]
LEAST = 3  # images of a class in either part; smaller classes are left out
RECOLOURED = 0.84  # correlation of two thumbnails' luma from which on they are one picture in two colours


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a task is; `make` makes it.

    Attributes:
        name: of its folder.
        kind: what its images are.
        about: it, in a line.
        licence: of the images, as their package states it.
        sources: the packages, Debian's by their names.
        pictures: all that there are, labelled and not divided yet.
        train: images of a class to train on, at most.
        share: of a class to train on, at most; the others are kept back.
        keep: images of a class to keep back, at most.
        recoloured: one picture in several colours counts as duplicates.
    """

    name: str
    kind: Kind
    about: str
    licence: str
    sources: tuple[str, ...]
    pictures: Callable[[], Sequence[Picture]]
    train: int
    share: float = 0.5
    keep: int | None = None
    recoloured: bool = False


def divide(task: Task, seed: int) -> dict[str, list[Picture]]:
    """{"train": ..., "test": ...}; the same for the same seed."""
    rng = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    pictures = _drawn(task, rng)
    members: dict[int, list[Picture]] = defaultdict(list)
    for first, picture in zip(_groups(task, pictures), pictures, strict=True):
        members[first].append(picture)
    by_class: dict[str, list[list[Picture]]] = defaultdict(list)
    for group in members.values():
        labels = {picture.label for picture in group}
        if len(labels) == 1:
            by_class[labels.pop()].append(group)
    parts: dict[str, list[Picture]] = {"train": [], "test": []}
    for label in sorted(by_class):
        train, test = _divide_class(task, by_class[label], rng)
        if min(len(train), len(test)) >= LEAST:
            parts["train"] += train
            parts["test"] += test
    return parts


def _drawn(task: Task, rng: np.random.Generator) -> list[Picture]:
    """All pictures, or of each class somewhat more than the task takes, so that few are compared."""
    pictures = list(task.pictures())
    if task.keep is None:
        return pictures
    by_class: dict[tuple[str, str], list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_class[picture.label, picture.part].append(picture)
    most = 2 * (task.train + task.keep)
    return [found[i] for found in by_class.values() for i in sorted(rng.permutation(len(found))[:most])]


def _groups(task: Task, pictures: Sequence[Picture]) -> list[int]:
    """For each picture the first of those that must be in the same part."""
    contents = [picture.read() for picture in pictures]
    pairs = [
        (pair.first, pair.second)
        for pair in find_duplicates(
            [hashlib.sha256(content).hexdigest() for content in contents], lambda i, least=None: load_image(contents[i])
        )
    ]
    first: dict[str, int] = {}
    for i, picture in enumerate(pictures):
        if picture.group and first.setdefault(picture.group, i) != i:
            pairs.append((first[picture.group], i))
    if task.recoloured:
        pairs += _recoloured(contents)
    return group_ids(len(pictures), [Pair(i, j, "near") for i, j in pairs])


def _recoloured(contents: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs whose thumbnails have one pattern of light and dark."""
    found = {i: thumbnail(load_image(content)) for i, content in enumerate(contents)}
    kept = {i: pixels.mean(axis=2).ravel() for i, pixels in found.items() if pixels is not None}
    places = list(kept)
    luma = np.stack([kept[i] for i in places])
    luma -= luma.mean(axis=1, keepdims=True)
    luma /= np.linalg.norm(luma, axis=1, keepdims=True) + 1e-9
    close = np.argwhere(np.triu(luma @ luma.T, 1) >= RECOLOURED)
    return [(places[i], places[j]) for i, j in close.tolist()]


def _divide_class(
    task: Task, groups: list[list[Picture]], rng: np.random.Generator
) -> tuple[list[Picture], list[Picture]]:
    """Groups at random into what is trained on, until it is full, and what is kept back."""
    there = sum(picture.part != "test" for group in groups for picture in group)
    room = min(task.train, int(task.share * there))
    train: list[Picture] = []
    test: list[Picture] = []
    for i in rng.permutation(len(groups)):
        mine = [picture for picture in groups[i] if picture.part != "test"]
        if mine and len(train) + len(mine) <= room:
            train += mine
        else:
            test += [picture for picture in groups[i] if picture.part != "train"]
    order = rng.permutation(len(test))[: task.keep]
    return train, [test[i] for i in order]
