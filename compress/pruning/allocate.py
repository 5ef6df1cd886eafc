"""Allocation: how many channels each group keeps, so that the network keeps a share of what it costs."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from compress.dependency.group import CLASSES, Group, Grouping, Indices
from compress.pruning.budget import Cost
from zoo.errors import UsageError

Scores = Sequence[NDArray[np.float64]]
# Of what is saved, in the choice of what is cut next. One seed, to a quarter of the MACs, recovered in 288 steps:
# ResNet-20 on digits 98.9% by `allocate`, 99.4% at 0.5 and 98.3% at 1; EfficientNet-Lite0 on emoji 79.6, 75.6 and 70.8%
# of the validation images, 60.1, 65.2 and 62.3% of another style's.
POWER = 0.5

Allocation = Callable[..., list[Indices]]  # (grouping, scores, *, share, cost, round_to, floor), as `allocate`
Ranking = Callable[[Grouping, Scores], list[NDArray[np.float64]]]  # scores -> what one threshold is drawn across
Losses = list[dict[int, float]]  # of each group: channels kept -> what is lost


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
    cost: Cost | None = None,
    ranking: Ranking = global_ranking,
    round_to: int = 8,
    floor: float = 0.1,
) -> list[Indices]:
    """One threshold over all ranked scores, the lowest that brings the cost to at most `share` of the network's.

    Args:
        scores: (width,) a group.
        cost: the MACs unless given.
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
    cost = cost or Cost.macs(grouping)
    groups, ranked = grouping.groups, ranking(grouping, scores)
    thresholds = np.unique(np.concatenate(ranked)) if ranked else np.zeros(0)
    orders = [np.argsort(-rank, kind="stable") for rank in ranked]  # best first

    def keep_at(count: int) -> list[Indices]:
        threshold = -np.inf if count == 0 else thresholds[count - 1]
        counts = [_count(g, int((r > threshold).sum()), round_to, floor) for g, r in zip(groups, ranked, strict=True)]
        for members in ties_of(groups):  # equally wide, as wide as they would be on average
            mean = round(sum(int((ranked[i] > threshold).sum()) for i in members) / len(members))
            for i in members:
                counts[i] = _count(groups[i], mean, round_to, floor)
        return [np.sort(order[:count]) for order, count in zip(orders, counts, strict=True)]

    limit = share * cost.total
    low, high = 0, len(thresholds)
    check_reachable(cost, keep_at(high), share, round_to=round_to, floor=floor)
    while low < high:  # the lowest threshold that satisfies the budget
        middle = (low + high) // 2
        if cost.after(keep_at(middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return keep_at(low)


def allocate_by_loss(
    grouping: Grouping, scores: Scores, losses: Losses, *, share: float, cost: Cost | None = None, power: float = POWER
) -> list[Indices]:
    """The widths that lose least: again and again the cut that loses least for what it saves, until the cost is met.

    A knapsack by its greedy rule, as in Shen et al. 2022 (HALP, arXiv 2110.10811, sec. 3), which is near the best where
    no item is a large part of the budget.

    Args:
        scores: (width,) a group; within a group the lowest go first.
        losses: what a group loses at each width that it may have; see `importance_lost` and
            compress/pruning/sensitivity.py.
        cost: the MACs unless given.
        power: of what is saved; at 0 only what is lost counts.

    Raises:
        UsageError: see `allocate`.
    """
    check_share(share)
    greedy = _Greedy(grouping, scores, losses, cost or Cost.macs(grouping), share, power)
    greedy.narrow()
    greedy.give_back()
    return greedy.keeps()


class _Greedy:
    """The state of `allocate_by_loss`: groups that have to be equally wide are one unit, on one rung of its widths."""

    def __init__(
        self, grouping: Grouping, scores: Scores, losses: Losses, cost: Cost, share: float, power: float
    ) -> None:
        self.losses, self.power, self.limit = losses, power, share * cost.total
        self.orders = [np.argsort(-score, kind="stable") for score in scores]
        self.rungs = [sorted(loss, reverse=True) for loss in losses]  # the widths, widest first
        self.units = units_of(grouping.groups)
        self.places = [len(self.rungs[unit[0]]) - 1 for unit in self.units]
        check_reachable(cost, self.keeps(), share)
        self.places = [0] * len(self.units)
        self.beside = self._neighbours(cost)
        self.spending = cost.spend(self.keeps())

    def keeps(self) -> list[Indices]:
        places = {i: place for unit, place in zip(self.units, self.places, strict=True) for i in unit}
        return [np.sort(order[: self.rungs[i][places[i]]]) for i, order in enumerate(self.orders)]

    def _neighbours(self, cost: Cost) -> list[set[int]]:
        """For each unit, the others that have operators in common with it."""
        operators = [{operator for i in unit for operator in cost.concerned[i]} for unit in self.units]
        units_of_operator = defaultdict[int, set[int]](set)
        for n, own in enumerate(operators):
            for operator in own:
                units_of_operator[operator].add(n)
        return [
            set[int]().union(*(units_of_operator[operator] for operator in own)) - {n}
            for n, own in enumerate(operators)
        ]

    def narrow(self) -> None:
        """Cut until the limit is met."""
        heap = [(*found, n) for n in range(len(self.units)) if (found := self._offer(n))]
        heapq.heapify(heap)
        stale = set[int]()  # those whose cut saves less than when it was offered, since others have been cut
        while self.spending.now > self.limit and heap:
            _, place, n = heapq.heappop(heap)
            if n in stale:
                stale.discard(n)
                if (found := self._offer(n)) is not None:
                    heapq.heappush(heap, (*found, n))
                continue
            if self._fits(n, place):  # and perhaps before
                place = next(p for p in range(self.places[n] + 1, place + 1) if self._fits(n, p))
            self._go(n, place)
            stale |= self.beside[n]
            if (again := self._offer(n)) is not None:
                heapq.heappush(heap, (*again, n))

    def give_back(self) -> None:
        """Widen again what the limit leaves room for: what was cut early may be narrower than it has to be by now."""
        while back := [
            (self._lost(n, place - 1), n) for n, place in enumerate(self.places) if place and self._fits(n, place - 1)
        ]:
            n = min(back)[1]
            self._go(n, self.places[n] - 1)

    def _at(self, n: int, place: int) -> dict[int, Indices]:
        return {i: np.sort(self.orders[i][: self.rungs[i][place]]) for i in self.units[n]}

    def _go(self, n: int, place: int) -> None:
        self.places[n] = place
        self.spending.take(self._at(n, place))

    def _fits(self, n: int, place: int) -> bool:
        return self.spending.now - self.spending.saved(self._at(n, place)) <= self.limit

    def _lost(self, n: int, place: int) -> float:
        return sum(
            self.losses[i][self.rungs[i][place]] - self.losses[i][self.rungs[i][self.places[n]]] for i in self.units[n]
        )

    def _offer(self, n: int) -> tuple[float, int] | None:
        """The best next cut of these groups, taken all alike: loss for what is saved, and at which rung it ends."""
        best: tuple[float, int] | None = None
        for place in range(self.places[n] + 1, len(self.rungs[self.units[n][0]])):
            saved = self.spending.saved(self._at(n, place))
            if saved > 0 and (best is None or self._lost(n, place) / saved**self.power < best[0]):
                best = self._lost(n, place) / saved**self.power, place
        return best


def allocate_by_importance(
    grouping: Grouping,
    scores: Scores,
    *,
    share: float,
    cost: Cost | None = None,
    round_to: int = 8,
    floor: float = 0.1,
    power: float = POWER,
) -> list[Indices]:
    """The widths that lose least importance for what they save; see `allocate_by_loss`."""
    losses = importance_lost(grouping, scores, round_to=round_to, floor=floor)
    return allocate_by_loss(grouping, scores, losses, share=share, cost=cost, power=power)


def importance_lost(grouping: Grouping, scores: Scores, *, round_to: int = 8, floor: float = 0.1) -> Losses:
    """What each group loses at each of its widths: the sum of the scores that go."""
    losses = []
    for group, score in zip(grouping.groups, scores, strict=True):
        best_first = np.concatenate([[0.0], np.cumsum(-np.sort(-score))])
        losses.append({n: float(best_first[-1] - best_first[n]) for n in widths_of(group, round_to, floor)})
    return losses


def narrowed(grouping: Grouping, shares: NDArray[np.float64], *, round_to: int, floor: float) -> list[Indices]:
    """The first channels of each group, about that share of its width; tied groups keep what the first of them does."""
    counts = [
        _count(group, round(float(share) * group.width), round_to, floor)
        for group, share in zip(grouping.groups, shares, strict=True)
    ]
    for members in ties_of(grouping.groups):
        for i in members:
            counts[i] = counts[members[0]]
    return [np.arange(count) for count in counts]


def widths_of(group: Group, round_to: int, floor: float) -> list[int]:
    """The widths that a group may have, widest first."""
    step = step_of(group, round_to)
    least = _count(group, 0, round_to, floor)
    return [group.width, *(n for n in range(step * ((group.width - 1) // step), 0, -step) if n >= least)]


def ties_of(groups: Sequence[Group]) -> list[list[int]]:
    """Numbers of the groups that have to stay equally wide."""
    ties: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        if group.tied is not None:
            ties[group.tied].append(i)
    return list(ties.values())


def units_of(groups: Sequence[Group]) -> list[list[int]]:
    """Numbers of the groups that are cut together: those that have to stay equally wide, every other one by itself."""
    return [*([i] for i, group in enumerate(groups) if group.tied is None), *ties_of(groups)]


def check_reachable(
    cost: Cost, narrowest: Sequence[Indices], share: float, *, round_to: int | None = None, floor: float = 0.1
) -> None:
    """Raises:
    UsageError: groups this narrow cost more than that share of the network's; which layers are whole is told.

    Args:
        round_to, floor: what made them as narrow, to tell what would be reached with widths under a norm.
    """
    least = cost.after(narrowest)
    if least <= share * cost.total:
        return
    if cost.unit == "ms":
        asked, stays = f"{share * cost.total:.4g} ms", f"about {least:.3g} ms"
    else:
        asked, stays = f"{100 * share:.4g}% of the {cost.unit}", f"at least {100 * least / cost.total:.4g}%"
    layers = [f"{layer} is left whole ({why})" for layer, why in cost.grouping.whole.items() if why != CLASSES]
    whole = f", since {layers[0]}" if layers else ""
    more = f" and {len(layers) - 1} more" if layers[1:] else ""
    ways = "ask for more, allow narrower groups with a lower floor, or start from a smaller model"
    if round_to is not None and cost.unit == "MACs":
        ways = _with_norms(cost, least, share, round_to, floor) + ways
    raise UsageError(f"{asked} is below what these groups can reach: {stays} stays{whole}{more}; {ways}")


def _with_norms(cost: Cost, least: float, share: float, round_to: int, floor: float) -> str:
    """What --normalized would do about it, "" where that is nothing."""
    grouping = cost.grouping.with_norms() if cost.grouping.with_norms is not None else cost.grouping
    every = Cost.macs(grouping)
    reached = every.after(narrowed(grouping, np.zeros(len(grouping.groups)), round_to=round_to, floor=floor))
    if reached >= least:
        return ""
    pct = f"{'' if reached <= share * every.total else 'only '}{100 * reached / every.total:.4g}%"
    return f"with the widths that norms normalize over (--normalized) it is {pct}; else "


globally = allocate
uniformly = partial(allocate, ranking=local_ranking)
isomorphically = partial(allocate, ranking=isomorphic_ranking)


def _count(group: Group, wanted: int, round_to: int, floor: float) -> int:
    """How many channels a group keeps: at least its floor, at least one, and a multiple of its step."""
    step = step_of(group, round_to)
    least = max(1, math.ceil(floor * group.width))
    if wanted >= group.width or group.width <= step:
        return group.width
    return min(group.width, max(step * math.ceil(least / step), step * round(wanted / step)))


def step_of(group: Group, round_to: int) -> int:
    """What a group's width is a multiple of: heads and groups 1, a head's width what fits 4 times."""
    if group.kind in ("heads", "conv groups"):
        return 1
    if group.kind in ("head widths", "group widths"):
        return max(1, min(round_to, group.width // 4))
    return round_to
