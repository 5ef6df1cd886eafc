"""Duplicates: equal files, images that were recompressed or resized, and mirrored ones.

Equal files have equal SHA-256. The others are found by thumbnails of 16 x 16 pixels (see thumbnails.py), in luma and
chroma, compared straight and mirrored. Two images are near duplicates where

    - the root mean square of the difference in luma is at most 1 + 0.1 x contrast, and at most 0.2 x contrast (of the
      less contrasty image, as the standard deviation of its thumbnail): what JPEG, WebP and resizing leave of it, and
    - no cell differs by more than 25 of 255 in luma or in either chroma: a drawing that was changed in one place (the
      hands of a clock, the coat of arms of a flag) differs much and there alone.

These limits were set on photographs, drawn emoji and handwritten digits. JPEG and WebP at qualities from 30 up, sizes
from 0.5 to 2 and mirroring stay within them; what else does are drawings that people take for the same.
benchmarks/bench_data.py measures both. Images of one colour (contrast below 2) and those below 16 pixels hold too
little to tell: of them only equal files are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfer.data.listing import Read
from transfer.data.thumbnails import SIDE, thumbnails
from zoo.progress import Progress

Kind = Literal["equal", "near", "mirrored"]
MIN_CONTRAST = 2.0
RMS, RMS_PER_CONTRAST, MAX_RMS_PER_CONTRAST = 1.0, 0.1, 0.2
MAX_LUMA = MAX_CHROMA = 25.0
COARSE = 4  # cells a side of what all pairs are compared by first
BLOCK = 256  # images compared with all in reach at a time
CHUNK = 4096  # pairs compared in full at a time
# RGB to YCbCr (JFIF 1.02, the conversion of JPEG)
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=np.float32)


@dataclass(frozen=True)
class Pair:
    """Two images that are alike; `first` < `second` are positions."""

    first: int
    second: int
    kind: Kind


def find_duplicates(hashes: Sequence[str], read: Read, *, progress: Progress | None = None) -> list[Pair]:
    """Pairs that are alike, as few as link all images of a group: n images in one group make n - 1 pairs.

    Args:
        hashes, read: see `thumbnails`.
    """
    return duplicate_pairs(hashes, thumbnails(hashes, read, progress=progress))


def duplicate_pairs(hashes: Sequence[str], pictures: Mapping[str, NDArray[np.uint8]]) -> list[Pair]:
    """`find_duplicates` of images whose thumbnails are known; those without one are compared by hash alone."""
    first: dict[str, int] = {}
    pairs = []
    for position, digest in enumerate(hashes):
        if first.setdefault(digest, position) != position:
            pairs.append(Pair(first[digest], position, "equal"))
    seen = [position for digest, position in first.items() if digest in pictures]
    if len(seen) > 1:
        stack = np.stack([pictures[hashes[position]] for position in seen])
        for i, j, kind in near_pairs(stack):
            pairs.append(Pair(min(seen[i], seen[j]), max(seen[i], seen[j]), kind))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def group_ids(count: int, pairs: Sequence[Pair]) -> list[int]:
    """For each of `count` images, the first of those that it is alike to, directly or over others."""
    groups = _Groups(count)
    for pair in pairs:
        groups.join(pair.first, pair.second)
    return [groups.first(i) for i in range(count)]


def near_pairs(pictures: NDArray[np.uint8]) -> list[tuple[int, int, Kind]]:
    """The linking pairs among (N, 16, 16, 3) thumbnails, straight or else mirrored.

    Images are sorted by their mean luma, in which near duplicates differ by no more than the root mean square allows,
    and compared block by block with those in reach: by 16 cells first, whose root mean square difference is never
    larger than that of all 256, then in full.
    """
    coarse, contrast = _summaries(pictures)
    chosen = np.flatnonzero(contrast >= MIN_CONTRAST)
    if not len(chosen):
        return []
    order = chosen[np.argsort(coarse[chosen].mean(axis=(1, 2)), kind="stable")]
    coarse, contrast = coarse[order], contrast[order]
    limits = np.minimum(RMS + RMS_PER_CONTRAST * contrast, MAX_RMS_PER_CONTRAST * contrast).astype(np.float32)
    means, reach = coarse.mean(axis=(1, 2)), limits.max()
    ordered = pictures[order]
    straight, mirrored = (side.reshape(len(order), -1) for side in (coarse, coarse[:, :, ::-1]))
    groups, found = _Groups(len(pictures)), []
    sides: tuple[tuple[Kind, NDArray[np.float32]], ...] = (("near", straight), ("mirrored", mirrored))
    for start in range(0, len(order), BLOCK):
        rows = slice(start, start + BLOCK)
        end = int(np.searchsorted(means, means[rows][-1] + reach, side="right"))
        for kind, others in sides:
            close = _close(straight[rows], others[start:end], limits[rows], limits[start:end])
            for chunk in range(0, len(close), CHUNK):
                pairs = [(i, j) for i, j in (start + close[chunk : chunk + CHUNK]).tolist() if i < j]
                apart = [(i, j) for i, j in pairs if groups.first(order[i]) != groups.first(order[j])]
                for i, j in _alike(ordered, limits, apart, flip=kind == "mirrored"):
                    if groups.join(int(order[i]), int(order[j])):
                        found.append((int(order[i]), int(order[j]), kind))
    return found


class _Groups:
    """Disjoint sets of positions, each known by its first."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def first(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def join(self, i: int, j: int) -> bool:
        """Whether they were apart."""
        one, other = sorted((self.first(i), self.first(j)))
        self._parent[other] = one
        return one != other


def _summaries(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 4, 4) mean luma of the cells, and (N,) contrast."""
    coarse = np.empty((len(pictures), COARSE, COARSE), dtype=np.float32)
    contrast = np.empty(len(pictures), dtype=np.float32)
    cell = SIDE // COARSE
    for start in range(0, len(pictures), CHUNK):
        rows = slice(start, start + CHUNK)
        block = pictures[rows].astype(np.float32)
        coarse[rows] = (block @ YCBCR[0]).reshape(-1, COARSE, cell, COARSE, cell).mean(axis=(2, 4))
        contrast[rows] = np.sqrt(block.reshape(len(block), -1, 3).var(axis=1).mean(axis=1))
    return coarse, contrast


def _close(
    ones: NDArray[np.float32],
    others: NDArray[np.float32],
    limits: NDArray[np.float32],
    other_limits: NDArray[np.float32],
) -> NDArray[np.intp]:
    """(P, 2) where the root mean square difference of two coarse lumas is within both limits, give or take rounding."""
    squares = (ones**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * ones @ others.T
    allowed = np.minimum(limits[:, None], other_limits) + np.float32(0.1)
    return np.argwhere(squares <= allowed**2 * ones.shape[1])


def _alike(
    pictures: NDArray[np.uint8], limits: NDArray[np.float32], pairs: list[tuple[int, int]], *, flip: bool
) -> list[tuple[int, int]]:
    """Those of the pairs that meet the rule of this module."""
    if not pairs:
        return []
    one, other = np.array(pairs).T
    second = pictures[other]
    difference = (pictures[one].astype(np.float32) - (second[:, :, ::-1] if flip else second)) @ YCBCR.T
    luma, chroma = difference[..., 0], difference[..., 1:]
    alike = np.sqrt((luma**2).mean(axis=(1, 2))) <= np.minimum(limits[one], limits[other])
    alike &= (np.abs(luma).max(axis=(1, 2)) <= MAX_LUMA) & (np.abs(chroma).max(axis=(1, 2, 3)) <= MAX_CHROMA)
    return [pair for pair, yes in zip(pairs, alike.tolist(), strict=True) if yes]
