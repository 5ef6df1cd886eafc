"""Labels: which channels of a network can only be removed together, as sets of integers that are united.

A label is an integer that stands for something that can be removed. Every tensor of a network carries labels, as a
tuple of integer arrays, its *marks*: each has the tensor's number of dimensions, and size 1 along those where it does
not change; 0 stands for what is never removed. An element of the tensor goes when any of its marks' labels goes.

Two relations hold between labels. *United* labels are one. A label that is a *product* of two others goes when either
goes: channel 70 of an attention with heads of 64 goes with head 1, and with the sixth width of every head.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]
Marks = tuple[Array, ...]
DEEPEST = 8  # products of products; more is a circle


class Labels:
    """Union-find over labels 1, 2, ..., products of them, and why some of them have to stay."""

    def __init__(self) -> None:
        self._parent = np.arange(1 << 12)
        self._factors = np.zeros((2, 1 << 12), dtype=np.int64)
        self._fixed = np.zeros(1 << 12, dtype=np.int64)
        self._normalized = np.zeros(1 << 12, dtype=np.int64)
        self._count = 1
        self._products = False
        self.reasons: list[str] = [""]
        self.kinds: dict[int, str] = {}

    def fresh(self, count: int, kind: str = "") -> Array:
        """`count` new labels; `kind` says what sort of width they are, where it is not plain channels."""
        first, self._count = self._count, self._count + count
        while self._count > len(self._parent):
            size = len(self._parent)
            self._parent = np.concatenate([self._parent, np.arange(size, 2 * size)])
            self._factors = np.pad(self._factors, ((0, 0), (0, size)))
            self._fixed, self._normalized = np.pad(self._fixed, (0, size)), np.pad(self._normalized, (0, size))
        new = np.arange(first, self._count)
        if kind:
            self.kinds.update(dict.fromkeys(new.tolist(), kind))
        return new

    @property
    def count(self) -> int:
        return self._count

    def find(self, labels: Array) -> Array:
        """The representative of each label."""
        found = self._parent[labels]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                return found
            found = above

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
                self._parent[high] = low
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
        """These stay, and so does everything that is united with them."""
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

    def why_fixed(self, root: int) -> str:
        return self.reasons[self._fixed[root]]

    def why_normalized(self, root: int) -> str:
        return self.reasons[self._normalized[root]]

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
            every = np.arange(self._count)
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

    def resolved(self, marks: Marks) -> list[Array]:
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
            first = array.take([0], axis=dim)
            if array.strides[dim] == 0 or (array == first).all():
                array = first
    return array


def varying(array: Array) -> tuple[int, ...]:
    return tuple(dim for dim in range(array.ndim) if array.shape[dim] > 1)


def pattern(array: Array) -> Array:
    """Where equal labels stand, whatever they are: the position of each one's first occurrence."""
    _, first, inverse = np.unique(array, return_index=True, return_inverse=True)
    return first[inverse].reshape(array.shape)


class Coupling:
    """What tensors' operators do to labels: unite those of elements that meet, split those that are blocks."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels

    def fix(self, array: Array, reason: str) -> None:
        self.labels.fix(array, f"{reason}{line_of_forward()}")

    def normalize(self, marks: Marks, reason: str) -> None:
        for array in marks:
            self.labels.normalize(array, reason)

    def level(self, marks: Marks, dims: tuple[int, ...], reason: str) -> Marks:
        """Unite along `dims`: what a sum, a maximum or a window joins goes together."""
        found = []
        for array in marks:
            for dim in set(varying(array)) & set(dims):
                first = array.take([0], axis=dim)
                self.equal(first, array, reason)
                array = first
            found.append(array)
        return tuple(found)

    def split(
        self, array: Array, left: tuple[int, ...], kinds: tuple[str, str] = ("blocks", "block widths")
    ) -> list[Array]:
        """Make each label of an array the product of one along the dimensions `left` and one along the others."""
        labels = self.labels
        along = tuple(n if d in left else 1 for d, n in enumerate(array.shape))
        across = tuple(1 if d in left else n for d, n in enumerate(array.shape))
        one = labels.fresh(int(np.prod(along)), kinds[0]).reshape(along)
        other = labels.fresh(int(np.prod(across)), kinds[1]).reshape(across)
        labels.multiply(array, one, other)
        return labels.resolved((array,))

    def separate(self, marks: Marks, left: tuple[int, ...], kinds: tuple[str, str]) -> list[Array]:
        """Marks of which none changes both along `left` and along another dimension."""
        found = []
        for array in self.labels.resolved(marks):
            dims = set(varying(array))
            joint = dims & set(left) and dims - set(left)
            found += self.split(array, left, kinds) if joint else [array]
        return self.labels.resolved(tuple(found))

    def meet(self, a: Marks, b: Marks, shape_a: tuple[int, ...], shape_b: tuple[int, ...], reason: str) -> None:
        """Unite the labels of two tensors that are combined element by element, with broadcasting.

        A dimension along which one of them has size 1 asks nothing of the other. `reason` is why labels stay that
        meet elements which never go.
        """
        if not a and not b:
            return
        rank = max(len(shape_a), len(shape_b))
        a, shape_a = _padded(a, shape_a, rank)
        b, shape_b = _padded(b, shape_b, rank)
        left = self._concerned(a, shape_b)
        right = self._concerned(b, shape_a)
        for one in list(left):
            for other in right:
                if one.shape == other.shape and np.array_equal(one, other):
                    left = [x for x in left if x is not one]
                    right = [x for x in right if x is not other]
                    break
        self._match(left, right, reason)

    def _concerned(self, marks: Marks, other: tuple[int, ...]) -> list[Array]:
        """Marks of a tensor along the dimensions in which the other one has its size too."""
        broadcast = tuple(d for d, n in enumerate(other) if n == 1)
        found = self.labels.resolved(marks)
        if any(set(varying(x)) & set(broadcast) for x in found):
            found = self.separate(tuple(found), broadcast, ("blocks", "block widths"))
        return [x for x in found if x.size > 1 and not set(varying(x)) & set(broadcast)]

    def _match(self, left: list[Array], right: list[Array], reason: str) -> None:
        if len(left) > len(right):
            left, right = right, left
        if not left:
            for array in right:
                self.fix(array, reason)
        elif len(left) == len(right) == 1:
            self.equal(left[0], right[0], reason)
        elif len(left) == 1 and {d for x in right for d in varying(x)} <= set(varying(left[0])):
            self._define(left[0], right, reason)
        else:
            self._pair(left, right, reason)

    def equal(self, one: Array, other: Array, reason: str) -> None:
        one, other = np.broadcast_arrays(one, other)
        for lone in (one[(other == 0) & (one != 0)], other[(one == 0) & (other != 0)]):
            if lone.size:
                self.fix(lone, reason)
        self.labels.unite(one, other)

    def _define(self, single: Array, factors: list[Array], reason: str) -> None:
        """single := product of factors; where only one of these is given, they are united."""
        while len(factors) > 2:
            joined = np.broadcast_arrays(*factors[-2:])
            both = self.labels.fresh(joined[0].size).reshape(joined[0].shape)
            self.labels.multiply(both, *joined)
            factors = [*factors[:-2], both]
        whole, one, other = np.broadcast_arrays(single, *factors)
        product = (one != 0) & (other != 0)
        self.labels.multiply(whole[product], one[product], other[product])
        self.equal(whole[~product], np.maximum(one, other)[~product], reason)

    def _pair(self, left: list[Array], right: list[Array], reason: str) -> None:
        """Several marks on both sides: those that change along the same dimensions in the same pattern are one."""
        for key in (lambda x: (varying(x), pattern(x).tobytes()), varying):
            for one in list(left):
                for other in right:
                    if one.shape == other.shape and key(one) == key(other):  # type: ignore[no-untyped-call]
                        self.equal(one, other, reason)
                        left = [x for x in left if x is not one]
                        right = [x for x in right if x is not other]
                        break
        for array in (*left, *right):
            self.fix(array, reason)


class Comparison(Coupling):
    """The same on a network that has been cut: elements that meet must have labels that are united already."""

    def __init__(self, labels: Labels) -> None:
        super().__init__(labels)
        self.wrong: dict[int, str] = {}

    def fix(self, array: Array, reason: str) -> None:
        pass  # done when the network was whole

    def normalize(self, marks: Marks, reason: str) -> None:
        pass

    def split(self, array: Array, left: tuple[int, ...], kinds: tuple[str, str] = ("", "")) -> list[Array]:
        self._blame(array)
        return [squeezed(np.zeros_like(array))]

    def equal(self, one: Array, other: Array, reason: str) -> None:
        one, other = (self.labels.find(x) for x in np.broadcast_arrays(one, other))
        self._blame(one[one != other])
        self._blame(other[one != other])

    def _match(self, left: list[Array], right: list[Array], reason: str) -> None:
        for array in (*left, *right):
            self._blame(array)

    def _blame(self, array: Array) -> None:
        roots = np.unique(self.labels.find(array))
        loose = [int(r) for r in roots if r and not self.labels.why_fixed(r)]
        if loose:
            self.wrong.update(dict.fromkeys(loose, f"its forward reads it by fixed numbers{line_of_forward()}"))


def line_of_forward() -> str:
    """ " (file:line)" of the innermost line outside torch and this package that is running, if there is one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if not any(part in ("torch", "prune") for part in path.parts) and path.suffix == ".py":
            return f" ({'/'.join(path.parts[-2:])}:{frame.f_lineno})"
        frame = frame.f_back
    return ""


def _padded(marks: Marks, shape: tuple[int, ...], rank: int) -> tuple[Marks, tuple[int, ...]]:
    """Dimensions of size 1 in front, as broadcasting adds them."""
    more = (1,) * (rank - len(shape))
    return tuple(x.reshape(more + x.shape) for x in marks), more + tuple(shape)
