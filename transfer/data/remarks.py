"""What a person should know of data before a model is made of them, in a line each: what was left out, which images are
in two parts, which have two labels. `data check` looks for more; here nothing is decoded that would not be anyway."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from transfer.data.contact_sheet import printable
from transfer.data.duplicates import duplicate_pairs, group_ids
from transfer.data.left_out import left_out
from transfer.data.loader import LabelledPixels
from transfer.data.sources import Data
from transfer.data.split import TEST, TRAIN, VAL
from transfer.data.thumbnails import recall, thumbnail, thumbnails
from zoo.progress import Progress


def files_left_out(data: Data) -> list[str]:
    """A line for each kind of file or folder that is there and was not taken for an image."""
    return [printable(line) for kind in left_out(data.ignored) for line in kind.describe()]


def leaks_and_contradictions(data: Data, parts: Mapping[str, LabelledPixels]) -> list[str]:
    """Lines on images that are in two parts, and on those that have two labels.

    Args:
        data: with its parts.
        parts: pixels of the images by part; {} finds what is alike across parts that the source names itself only as
            far as the cache has thumbnails.
    """
    groups: dict[object, list[int]] = defaultdict(list)
    looks = data.named and data.prepared is None  # tensors are equal or not
    for position, group in enumerate(_alike(data, parts) if looks else data.groups):
        groups[group].append(position)
    several = [members for members in groups.values() if len(members) > 1]
    return [*_leaks(data, several), *_contradictions(data, several)]


def where_to_look(
    remarks: Sequence[str],
    source: str | Path,
    *,
    val: float | str | None,
    test: float | str | None,
    seed: int,
    layout: str,
) -> list[str]:
    """The command that shows all of it; nothing where there is nothing to show."""
    words = ["slimzoo", "data", "check", str(source)]
    chosen = None if layout == "auto" else layout
    for option, value in (("--val", val), ("--test", test), ("--seed", seed or None), ("--layout", chosen)):
        words += [] if value is None else [option, str(value)]
    return [f"all of it: {shlex.join(words)}"] if remarks else []


def check_readable(data: Data, progress: Progress | None = None) -> None:
    """Decode every image that has not been decoded before.

    Raises:
        zoo.image.ImageError: one cannot be read; the first.
    """
    decoded = thumbnails(data.hashes, data.read, progress=progress)
    for position, digest in enumerate(data.hashes):
        if digest not in decoded:  # or it is too small for a thumbnail
            data.read(position)


def _alike(data: Data, parts: Mapping[str, LabelledPixels]) -> list[int]:
    """For each image the first of those that it is alike to, across all parts."""
    pictures = {digest: picture for digest, picture in recall(data.hashes).items() if picture is not None}
    for part, images in parts.items():
        for row, position in enumerate(data.indices(part).tolist()):
            digest = data.hashes[position]
            if digest not in pictures:
                small = thumbnail(np.broadcast_to(images.pixels[row], (*images.pixels.shape[1:3], 3)))
                if small is not None:
                    pictures[digest] = small
    return group_ids(len(data.hashes), duplicate_pairs(data.hashes, pictures))


def _leaks(data: Data, groups: Sequence[Sequence[int]]) -> Iterator[str]:
    parts = data.parts.tolist()
    for held_out, other in ((VAL, TRAIN), (TEST, TRAIN), (TEST, VAL)):
        pairs = [
            (i, next(j for j in members if parts[j] == other))
            for members in groups
            for i in members
            if parts[i] == held_out and other in {parts[j] for j in members}
        ]
        if pairs:
            i, j = pairs[0]
            yield (
                f"leak: {len(pairs)} of {parts.count(held_out)} {held_out} images are in {other} too, or are like one "
                f"there, such as {printable(data.keys[i])} and {printable(data.keys[j])}: accuracy on them says little"
            )


def _contradictions(data: Data, groups: Sequence[Sequence[int]]) -> Iterator[str]:
    torn = [members for members in groups if len({int(data.labels[i]) for i in members}) > 1]
    if torn:
        one = torn[0][0]
        other = next(i for i in torn[0] if data.labels[i] != data.labels[one])
        named = (f"{printable(data.keys[i])} ({data.classes[data.labels[i]]!r})" for i in (one, other))
        many = "1 picture is" if len(torn) == 1 else f"{len(torn)} pictures are"
        yield f"contradiction: {many} there under two labels, equal or alike, such as {' and '.join(named)}"
