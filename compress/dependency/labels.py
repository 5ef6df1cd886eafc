"""Labels: which channels of a network can only be removed together, as sets of integers that are united.

A label is an integer that stands for something that can be removed. Every tensor of a network carries labels, as a
tuple of integer arrays, its *marks*: each has the tensor's number of dimensions, and size 1 along those where it does
not change; 0 stands for what is never removed. An element of the tensor goes when any of its marks' labels goes.

Two relations hold between labels. *United* labels are one. A label that is a *product* of two others goes when either
goes: channel 70 of an attention with heads of 64 goes with head 1, and with the sixth width of every head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.int64]
Marks = tuple[Array, ...]
Reasons = dict[int, str]  # representative of a label -> why it stays
DEEPEST = 8  # products of products; more is a circle


class Labels:
    """Union-find over labels 1, 2, ..., products of them, and why some of them have to stay."""

    def __init__(self) -> None:
        self._parent = np.arange(1 << 12)
        self._factors = np.zeros((2, 1 << 12), dtype=np.int64)
        self._fixed, self._normalized = np.zeros((2, 1 << 12), dtype=np.int64)  # places in `reasons`
        self.count = 1
        self._products = False
        self.reasons: list[str] = [""]
        self.kinds: dict[int, str] = {}

    def fresh(self, count: int, kind: str = "") -> Array:
        """Make new labels; `kind` says what sort of width they are, where it is not plain channels."""
        first, self.count = self.count, self.count + count
        while self.count > len(self._parent):
            size = len(self._parent)
            self._parent = np.concatenate([self._parent, np.arange(size, 2 * size)])
            self._factors = np.pad(self._factors, ((0, 0), (0, size)))
            self._fixed, self._normalized = np.pad(self._fixed, (0, size)), np.pad(self._normalized, (0, size))
        new = np.arange(first, self.count)
        if kind:
            self.kinds.update(dict.fromkeys(new.tolist(), kind))
        return new

    def find(self, labels: Array) -> Array:
        """The representative of each label."""
        found, far = self._parent[labels], False
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found, far = above, True
        if far:
            self._parent[labels] = found
        return found

    def unite(self, a: Array, b: Array) -> None:
        """Make a[i] and b[i] one (broadcast); what is united with 0 can never be removed."""
        pending = [(a, b)]
        while pending:
            one, other = np.broadcast_arrays(*pending.pop())
            while True:
                x, y = self.find(one), self.find(other)
                differ = (x != y) & (x != 0) & (y != 0)
                if not differ.any():
                    break
                low, high = np.minimum(x[differ], y[differ]), np.maximum(x[differ], y[differ])
                np.minimum.at(self._parent, high, low)  # of several the least: the others meet it in the next turn
                np.maximum.at(self._fixed, low, self._fixed[high])
                np.maximum.at(self._normalized, low, self._normalized[high])
                if self._products:
                    pending += self._inherit(low, high)
            for lone in (x[(y == 0) & (x != 0)], y[(x == 0) & (y != 0)]):
                if lone.size:
                    self.fix(lone, "it is coupled with numbers that are computed, not learned")

    def _inherit(self, low: Array, high: Array) -> list[tuple[Array, Array]]:
        """Hand the factors of united labels to the one that represents them; where both have some, those are united."""
        both = (self._factors[0, low] != 0) & (self._factors[0, high] != 0)
        again = [(self._factors[side, low[both]], self._factors[side, high[both]]) for side in (0, 1)]
        gets = (self._factors[0, low] == 0) & (self._factors[0, high] != 0)
        self._factors[:, low[gets]] = self._factors[:, high[gets]]
        return again

    def fix(self, labels: Array, reason: str) -> None:
        """Keep these labels whole, and with them everything that is united with them."""
        self._mark(self._fixed, labels, reason)

    def normalize(self, labels: Array, reason: str) -> None:
        """A norm takes its moments over these: to remove some changes what it does to the others."""
        self._mark(self._normalized, labels, reason)

    def _mark(self, flags: Array, labels: Array, reason: str) -> None:
        roots = self.find(labels).ravel()
        roots = roots[(roots != 0) & (flags[roots] == 0)]
        if roots.size:
            flags[roots] = len(self.reasons)
            self.reasons.append(reason)

    def stay(self, roots: Array, *, normalized: bool) -> NDArray[np.bool_]:
        """Whether each of these representatives is fixed, or, unless `normalized` may go, under a norm."""
        fixed = self._fixed[roots] != 0
        found: NDArray[np.bool_] = fixed if normalized else fixed | (self._normalized[roots] != 0)
        return found

    def why_fixed(self, root: int) -> str:
        return self.reasons[int(self._fixed[root])]

    def why_normalized(self, root: int) -> str:
        return self.reasons[int(self._normalized[root])]

    def multiply(self, labels: Array, one: Array, other: Array) -> None:
        """labels[i] goes when one[i] or other[i] goes."""
        labels, one, other = (np.array(x).ravel() for x in np.broadcast_arrays(labels, one, other))
        roots = self.find(labels)
        used = roots != 0
        roots, one, other = roots[used], one[used], other[used]
        inside = np.concatenate([a.ravel() for side in (one, other) for a in self.resolve(side)] or [one])
        if np.isin(roots, inside).any():  # it would be a product of itself
            self.unite(roots, one)
            self.unite(roots, other)
            self.fix(roots, "its couplings form a circle")
            return
        self._products = True
        blank = self._factors[0, roots] == 0
        self._factors[0, roots[blank]], self._factors[1, roots[blank]] = one[blank], other[blank]
        factors = self._factors[:, roots]
        self.unite(factors[0], one)
        self.unite(factors[1], other)

    def settle(self) -> None:
        """A product that has to stay keeps both of its factors."""
        for _ in range(DEEPEST):
            every = np.arange(self.count)
            roots = every[(self._factors[0, every] != 0) & (self._parent[every] == every)]
            for flags in (self._fixed, self._normalized):
                marked = roots[flags[roots] != 0]
                for side in (0, 1):
                    factors = self.find(self._factors[side, marked])
                    blank = flags[factors] == 0
                    flags[factors[blank]] = flags[marked[blank]]

    def resolve(self, labels: Array, depth: int = 0) -> list[Array]:
        """Representatives only, products replaced by their factors: the marks that one array of labels stands for."""
        roots = self.find(labels)
        if not self._products:
            return [roots]
        first = self._factors[0, roots]
        product = first != 0
        if not product.any():
            return [roots]
        if depth > DEEPEST:
            raise RecursionError("a label is a product of itself")
        one, other = np.where(product, first, roots), np.where(product, self._factors[1, roots], 0)
        return self.resolve(one, depth + 1) + self.resolve(other, depth + 1)

    def resolved(self, marks: Iterable[Array]) -> list[Array]:
        """All marks resolved, squeezed, each once."""
        found: list[Array] = []
        for mark in marks:
            for array in self.resolve(mark):
                array = squeezed(array)
                if array.any() and not any(a.shape == array.shape and np.array_equal(a, array) for a in found):
                    found.append(array)
        return found


def squeezed(array: Array) -> Array:
    """The array with size 1 along every dimension in which it does not change."""
    for dim in range(array.ndim):
        if array.shape[dim] > 1:
            first = array[(slice(None),) * dim + (slice(1),)]
            if array.strides[dim] == 0 or (array == first).all():
                array = first
    return array


def varying(array: Array) -> tuple[int, ...]:
    return tuple([dim for dim, n in enumerate(array.shape) if n > 1])


def pattern(array: Array) -> Array:
    """Where equal labels stand, whatever they are: the position of each one's first occurrence."""
    _, first, inverse = np.unique(array, return_index=True, return_inverse=True)
    return first[inverse].reshape(array.shape)


def only(marks: Marks | list[Array], dim: int = 0) -> dict[int, Array]:
    """{dim: labels} for a parameter that has exactly these 1-D labels, {} where one array does not say it all."""
    return {dim: marks[0]} if len(marks) == 1 else {}


def along(marks: Marks | list[Array], dim: int) -> Marks:
    """Marks that change along `dim`, as 1-D arrays."""
    found = []
    for mark in marks:
        if mark.shape[dim] > 1:
            others = tuple(d for d in varying(mark) if d != dim)
            for other in others:  # laid out over several: the first row stands for all
                mark = mark.take([0], axis=other)
            found.append(mark.reshape(-1))
    return tuple(found)


def as_marks(arrays: Iterable[Array], dim: int, rank: int) -> Marks:
    """Labels along `dim` of a tensor of `rank` dimensions, each array with one number per index, as marks."""
    shape = [-1 if d == dim else 1 for d in range(rank)]
    return tuple(array.reshape(shape) for array in arrays)


def move(mark: Array, shape: tuple[int, ...], operator: Callable[[Tensor], Any]) -> list[Array]:
    """The operator applied to one tensor's labels as if to the tensor; a list, since it may give several."""
    full = torch.from_numpy(mark).expand(shape)
    moved = operator(full)
    return [squeezed(t.numpy()) for t in (moved if isinstance(moved, tuple | list) else (moved,))]


def aligned(marks: Marks, rank: int) -> Marks:
    return tuple(m.reshape((1,) * (rank - m.ndim) + m.shape) for m in marks)
