"""Allocation: how many channels each group keeps, so that the network keeps a share of its MACs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from compress.prune.group import Group, Grouping, Indices, Product
from zoo.errors import UsageError

Scores = Sequence[NDArray[np.float64]]
Ranking = Callable[[Grouping, Scores], list[NDArray[np.float64]]]  # scores -> what one threshold is drawn across


def global_ranking(grouping: Grouping, scores: Scores) -> list[NDArray[np.float64]]:
    """The scores as they are: groups of little importance lose most."""
    return [np.asarray(score, dtype=np.float64) for score in scores]


def local_ranking(grouping: Grouping, scores: Scores) -> list[NDArray[np.float64]]:
    """Each channel's place within its own group, in (0, 1]: every group loses the same share."""
    return [_places(score) for score in scores]


def isomorphic_ranking(grouping: Grouping, scores: Scores) -> list[NDArray[np.float64]]:
    """Each channel's place among the groups of equal structure (Fang et al. 2024, arXiv 2407.04616, sec. 3.3).

    Two groups are isomorphic if they have the same width and their slices, in order, are of tensors of the same shape
    along the same dimension: the blocks of a stage, as a rule. Scores are comparable among those, and not beyond.
    """
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, group in enumerate(grouping.groups):
        alike[group.kind, group.width, tuple((s.tensor, s.dim, len(s.channels)) for s in group.slices)].append(i)
    ranked: list[NDArray[np.float64]] = [np.zeros(0)] * len(scores)
    for members in alike.values():
        places = _places(np.concatenate([scores[i] for i in members]))
        ends = np.cumsum([len(scores[i]) for i in members])
        for i, part in zip(members, np.split(places, ends[:-1]), strict=True):
            ranked[i] = part
    return ranked


def _places(score: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.empty(len(score))
    places[np.argsort(score, kind="stable")] = np.arange(1, len(score) + 1)
    return places / max(1, len(score))


def check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise UsageError(f"a share of MACs of {share} must be above 0 and at most 1: 0.5 keeps half")


def allocate(
    grouping: Grouping,
    scores: Scores,
    *,
    share: float,
    ranking: Ranking = global_ranking,
    round_to: int = 8,
    floor: float = 0.1,
) -> list[Indices]:
    """One threshold over all ranked scores, the lowest that brings the MACs to at most `share` of the network's.

    Args:
        scores: (width,) a group.
        ranking: what makes the scores of different groups comparable.
        round_to: widths become multiples of this, where the layer is that wide: kernels work on blocks of 8. Heads and
            groups of convolutions are counted one by one.
        floor: share of its width that every group keeps.

    Returns:
        For each group the channels to keep, ascending.

    Raises:
        UsageError: the share is not in (0, 1], or no threshold reaches it.
    """
    check_share(share)
    groups, ranked = grouping.groups, ranking(grouping, scores)
    thresholds = np.unique(np.concatenate(ranked)) if ranked else np.zeros(0)
    total = macs_of(grouping)

    orders = [np.argsort(-rank, kind="stable") for rank in ranked]  # best first

    def keep_at(count: int) -> list[Indices]:
        threshold = -np.inf if count == 0 else thresholds[count - 1]
        counts = [_count(g, int((r > threshold).sum()), round_to, floor) for g, r in zip(groups, ranked, strict=True)]
        for i, group in enumerate(groups):
            if group.tied is not None:  # equally wide, as wide as they would be on average
                together = [j for j, g in enumerate(groups) if g.tied == group.tied]
                mean = round(sum(int((ranked[j] > threshold).sum()) for j in together) / len(together))
                counts[i] = _count(group, mean, round_to, floor)
        return [np.sort(order[:count]) for order, count in zip(orders, counts, strict=True)]

    low, high = 0, len(thresholds)
    smallest = macs_after(grouping, keep_at(high))
    if smallest > share * total:
        raise UsageError(
            f"{share:.0%} of the MACs is below what these groups can reach: at least {smallest / total:.1%} "
            "stays; ask for more, or start from a smaller model"
        )
    while low < high:  # the lowest threshold that satisfies the budget
        middle = (low + high) // 2
        if macs_after(grouping, keep_at(middle)) <= share * total:
            high = middle
        else:
            low = middle + 1
    return keep_at(low)


def macs_of(grouping: Grouping) -> int:
    """MACs of the whole network, for one image."""
    return sum(p.constant * math.prod(w.size for w in p.factors) for p in grouping.products)


def macs_after(grouping: Grouping, keeps: Sequence[Indices]) -> int:
    """MACs of the network with only the kept channels, computed without cutting anything."""
    kept, left = grouping.flat(keeps), dict[int, int]()
    for width in (w for p in grouping.products for w in p.factors):  # many layers have the same
        if id(width) not in left:
            left[id(width)] = width.left(kept)
    return sum(p.constant * math.prod(left[id(w)] for w in p.factors) for p in grouping.products)


def saved_macs(grouping: Grouping, keeps: Sequence[Indices]) -> list[int]:
    """For each group the MACs that the network would save by its cut alone."""
    ends = np.cumsum([0, *(group.width for group in grouping.groups)])
    concerned: list[list[Product]] = [[] for _ in grouping.groups]
    for product in grouping.products:
        channels = np.concatenate([w.channels for w in product.factors])
        for i in np.unique(np.searchsorted(ends, channels, side="right") - 1).tolist():
            concerned[i].append(product)
    kept, saved = grouping.flat(keeps), []
    for i, products in enumerate(concerned):
        alone = np.ones_like(kept)
        alone[ends[i] : ends[i + 1]] = kept[ends[i] : ends[i + 1]]
        whole = sum(p.constant * math.prod(w.size for w in p.factors) for p in products)
        saved.append(whole - sum(p.constant * math.prod(w.left(alone) for w in p.factors) for p in products))
    return saved


def _count(group: Group, wanted: int, round_to: int, floor: float) -> int:
    """How many channels a group keeps: at least its floor, at least one, and a multiple of its step."""
    step = step_of(group, round_to)
    least = max(1, math.ceil(floor * group.width))
    if group.width <= step:
        return group.width
    return min(group.width, max(step * math.ceil(least / step), step * round(wanted / step)))


def step_of(group: Group, round_to: int) -> int:
    """What a group's width is a multiple of: heads and groups 1, a head's width what fits 4 times."""
    if group.kind in ("heads", "conv groups"):
        return 1
    if group.kind in ("head widths", "group widths"):
        return max(1, min(round_to, group.width // 4))
    return round_to
