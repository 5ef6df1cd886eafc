"""What a model remembers of the images that it has seen: kept by each step, asked when it meets images again."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from transfer.data.duplicates import find_duplicates, group_ids
from transfer.data.loader import LabelledPixels
from transfer.data.sources import Data
from transfer.data.split import TRAIN, VAL, count_groups, stratified_split
from zoo.files.seen import BYTES, FOLD, PARTS, Seen
from zoo.preprocess import Preprocess

SAMPLE = 32  # images whose pixels are compared where their files are not known


def pixel_hashes(images: LabelledPixels) -> Iterator[str]:
    """Hash each image's pixels, as long as `Seen` keeps them."""
    return _hashes(images.pixels)


def _hashes(pixels: Iterable[NDArray[np.uint8]]) -> Iterator[str]:
    for image in pixels:
        yield hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=BYTES).hexdigest()


def divided_as_seen(
    data: Data, seen: Seen, preprocess: Preprocess, *, val: float, test: float, seed: int
) -> Data | None:
    """Each image that the model has seen in the part that it had then, whatever part the source gives it.

    A new image has the part that the source names, else that of a seen image which is like it, else one by chance.
    Classes with too few new images for that train on them.

    Args:
        data: as the source gives it, with "" where it names no part.
        preprocess: how the network takes them.
        val, test: shares of the new images.

    Returns:
        None where the model has seen none of them.
    """
    known = _known(data, seen, preprocess)
    if not any(known):
        return None
    refit = FOLD in known
    known = [VAL if part == FOLD else part for part in known]
    parts = np.array([was or given for was, given in zip(known, data.parts.tolist(), strict=True)], dtype="<U5")
    groups: list[Hashable] = list(data.hashes)
    if (parts == "").any():
        groups = list(group_ids(len(parts), find_duplicates(data.hashes, data.read)))
        placed: dict[Hashable, str] = {}
        for part in reversed(PARTS):  # the strongest is written last
            placed |= {group: part for group, was in zip(groups, known, strict=True) if was == part}
        parts = np.array([part or placed.get(group, "") for part, group in zip(parts.tolist(), groups, strict=True)])
        new = np.flatnonzero(parts == "")
        parts = parts.astype("<U5")
        parts[new] = _split(data.labels[new], [groups[i] for i in new], val=val, test=test, seed=seed)
    return replace(data, parts=parts, groups=tuple(map(str, groups)), refit=refit)


def _known(data: Data, seen: Seen, preprocess: Preprocess) -> list[str | None]:
    """Find the parts by file, and where some have become others with the same pixels, by those: a few images say so."""
    known = [seen.part_of(digest) for digest in data.hashes]
    others = [i for i, part in enumerate(known) if part is None]
    few = np.random.default_rng(0).permutation(others)[:SAMPLE].tolist()
    for chosen in (few, others):
        resized = (data.resized(i, preprocess) for i in chosen)
        parts = [seen.part_of(digest) for digest in _hashes(resized)]
        if not any(parts):
            break
        for i, part in zip(chosen, parts, strict=True):
            known[i] = part
    return known


def _split(
    labels: NDArray[np.int64], groups: list[Hashable], *, val: float, test: float, seed: int
) -> NDArray[np.str_]:
    found = np.full(len(labels), TRAIN, dtype="<U5")
    if not len(labels):
        return found
    counts = np.array(count_groups(labels.tolist(), groups))
    enough = np.flatnonzero(counts[labels] >= 1 + (val > 0) + (test > 0))
    if len(enough):
        _, renumbered = np.unique(labels[enough], return_inverse=True)
        chosen = [groups[i] for i in enough]
        found[enough] = stratified_split(renumbered.tolist(), val=val, test=test, seed=seed, groups=chosen)
    return found
