"""What a network costs after a cut, computed without cutting anything: MACs, or milliseconds as predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compress.dependency.group import Grouping, Indices, Product, Width


class Cost:
    """`fixed` + the sum over operators i of `rates[i]` x what is left of the sizes that `products[i]` multiplies.

    Attributes:
        unit: what it is counted in: "MACs", "ms".
        total: of the uncut network.
    """

    def __init__(
        self,
        grouping: Grouping,
        products: Sequence[Product],
        rates: Sequence[float],
        *,
        fixed: float = 0,
        unit: str = "MACs",
    ) -> None:
        self.grouping, self.products, self.rates, self.fixed, self.unit = grouping, products, rates, fixed, unit
        sizes = [math.prod(w.size for w in p.factors) for p in products]
        self.total = fixed + sum(rate * size for rate, size in zip(rates, sizes, strict=True))
        ends = np.cumsum([0, *(group.width for group in grouping.groups)])
        self.starts = ends[:-1]
        self.concerned: list[list[int]] = [[] for _ in grouping.groups]  # of each group: which operators
        for i, product in enumerate(products):
            channels = np.concatenate([np.zeros(0, dtype=np.intp), *(w.channels for w in product.factors)])
            for group in np.unique(np.searchsorted(ends, channels, side="right") - 1).tolist():
                self.concerned[group].append(i)

    @classmethod
    def macs(cls, grouping: Grouping) -> Cost:
        """Make the cost in MACs, for one image; whole numbers."""
        return cls(grouping, grouping.products, [product.constant for product in grouping.products])

    def after(self, keeps: Sequence[Indices]) -> float:
        """Give the cost with only these channels of each group kept."""
        return self.spend(keeps).now

    def spend(self, keeps: Sequence[Indices]) -> Spending:
        return Spending(self, keeps)

    def saved_alone(self, keeps: Sequence[Indices]) -> list[float]:
        """For each group what its cut alone would save."""
        whole = self.spend([np.arange(group.width) for group in self.grouping.groups])
        return [whole.saved({i: keep}) for i, keep in enumerate(keeps)]


class Spending:
    """A cost while groups are being cut: what the next cut would save depends on those made before.

    Attributes:
        now: the cost.
    """

    def __init__(self, cost: Cost, keeps: Sequence[Indices]) -> None:
        self.cost = cost
        self._state = _State(cost.grouping.flat(keeps), {})
        self.now = cost.fixed + sum(self._of(i, self._state) for i in range(len(cost.rates)))

    def saved(self, narrower: Mapping[int, Indices]) -> float:
        """Give what cutting these groups (their numbers, and the channels that stay) further saves."""
        return self._after(narrower)[0]

    def take(self, narrower: Mapping[int, Indices]) -> None:
        saved, self._state = self._after(narrower)
        self.now -= saved

    def sizes(self) -> list[int]:
        """What is left of the size of each operator."""
        return [self._size(i, self._state) for i in range(len(self.cost.rates))]

    def _after(self, narrower: Mapping[int, Indices]) -> tuple[float, _State]:
        grouping = self.cost.grouping
        operators = sorted({p for group in narrower for p in self.cost.concerned[group]})
        then = _State(self._state.kept.copy(), dict(self._state.left))
        for group, keep in narrower.items():
            start = self.cost.starts[group]
            then.kept[start : start + grouping.groups[group].width] = False
            then.kept[start + keep] = True
        for width in (w for i in operators for w in self.cost.products[i].factors):
            then.left.pop(id(width), None)
        return sum(self._of(i, self._state) - self._of(i, then) for i in operators), then

    def _of(self, operator: int, state: _State) -> float:
        return self.cost.rates[operator] * self._size(operator, state)

    def _size(self, operator: int, state: _State) -> int:
        return math.prod(state.size(width) for width in self.cost.products[operator].factors)


class _State(NamedTuple):
    """Which channels are kept, and what is left of the sizes that were asked for, by identity: many operators share."""

    kept: NDArray[np.bool_]
    left: dict[int, int]

    def size(self, width: Width) -> int:
        if id(width) not in self.left:
            self.left[id(width)] = width.left(self.kept)
        return self.left[id(width)]
