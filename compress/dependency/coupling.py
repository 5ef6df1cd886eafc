"""Coupling: how operators unite the labels of elements that meet, and split those of blocks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from compress.dependency.labels import Array, Labels, Marks, Reasons, pattern, squeezed, varying

HERE, TORCH = Path(__file__).parent, Path(torch.__file__).parent
BLOCKS = ("blocks", "block widths")
Alike = Callable[[Array, Array], bool]


class Coupling:
    """Unites the labels of elements that meet, splits those of blocks, and fixes those that have to stay."""

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

    def split(self, array: Array, left: tuple[int, ...], kinds: tuple[str, str] = BLOCKS) -> list[Array]:
        """Make each label of an array the product of one along the dimensions `left` and one along the others."""
        labels = self.labels
        along = tuple(n if d in left else 1 for d, n in enumerate(array.shape))
        across = tuple(1 if d in left else n for d, n in enumerate(array.shape))
        one = labels.fresh(int(np.prod(along)), kinds[0]).reshape(along)
        other = labels.fresh(int(np.prod(across)), kinds[1]).reshape(across)
        labels.multiply(array, one, other)
        return labels.resolved((array,))

    def separate(self, marks: Marks, left: tuple[int, ...], kinds: tuple[str, str]) -> Marks:
        """Marks of which none changes both along `left` and along another dimension."""
        found: list[Array] = []
        for array in self.labels.resolved(marks):
            dims = set(varying(array))
            joint = dims & set(left) and dims - set(left)
            found += self.split(array, left, kinds) if joint else [array]
        return tuple(self.labels.resolved(found))

    def meet(self, a: Marks, b: Marks, shape_a: tuple[int, ...], shape_b: tuple[int, ...], reason: str) -> None:
        """Unite the labels of two tensors that are combined element by element, with broadcasting.

        A dimension along which one of them has size 1 asks nothing of the other. `reason` is why labels stay that
        meet elements which never go.
        """
        if not a and not b:
            return
        if len(a) == len(b) == 1 and _same(a[0], b[0]):
            return
        rank = max(len(shape_a), len(shape_b))
        a, shape_a = _padded(a, shape_a, rank)
        b, shape_b = _padded(b, shape_b, rank)
        left, right = self._concerned(a, shape_b), self._concerned(b, shape_a)
        _take_pairs(left, right, np.array_equal)
        self._match(left, right, reason)

    def _concerned(self, marks: Marks, other: tuple[int, ...]) -> list[Array]:
        """Marks of a tensor along the dimensions in which the other one has its size too."""
        broadcast = tuple(d for d, n in enumerate(other) if n == 1)
        found = tuple(self.labels.resolved(marks))
        if any(set(varying(x)) & set(broadcast) for x in found):
            found = self.separate(found, broadcast, BLOCKS)
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
        """Make a label the product of its factors; where only one factor is given, unite the two."""
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
        """Unite marks of both sides that change along the same dimensions, first those of the same pattern."""
        for alike in (lambda a, b: np.array_equal(pattern(a), pattern(b)), lambda a, b: True):
            for one, other in _take_pairs(left, right, alike):
                self.equal(one, other, reason)
        for array in (*left, *right):
            self.fix(array, reason)


class Comparison(Coupling):
    """Checks a network that has been cut: elements that meet must have labels that are united already."""

    def __init__(self, labels: Labels) -> None:
        super().__init__(labels)
        self.wrong: Reasons = {}

    def fix(self, array: Array, reason: str) -> None:
        pass  # done when the network was whole

    def normalize(self, marks: Marks, reason: str) -> None:
        pass

    def split(self, array: Array, left: tuple[int, ...], kinds: tuple[str, str] = BLOCKS) -> list[Array]:
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


@cache
def name_in_model(file: str) -> str:
    """The name of a source file, such as "models/levit.py"; "" for one of torch or of this package."""
    path = Path(file)
    theirs = path.suffix == ".py" and path.parent != HERE and TORCH not in path.parents
    return "/".join(path.parts[-2:]) if theirs else ""


def line_of_forward() -> str:
    """The innermost line outside torch and this package that is running, as " (file:line)"; "" without one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if name := name_in_model(frame.f_code.co_filename):
            return f" ({name}:{frame.f_lineno})"
        frame = frame.f_back
    return ""


def _same(one: Array, other: Array) -> bool:
    """The same labels along the same dimension, counted from the last."""
    if one.size != other.size or one.tobytes() != other.tobytes():  # ten times as fast as to compare the numbers
        return False
    more = other.ndim - one.ndim
    return one.ndim == other.ndim == 1 or [d + more for d in varying(one)] == [*varying(other)]


def _take_pairs(left: list[Array], right: list[Array], alike: Alike) -> list[tuple[Array, Array]]:
    """Take arrays that are alike, and have one shape, out of both lists, two by two."""
    taken = []
    for one in list(left):
        at = next((i for i, other in enumerate(right) if one.shape == other.shape and alike(one, other)), None)
        if at is not None:
            taken.append((one, right.pop(at)))
            left[:] = [x for x in left if x is not one]
    return taken


def _padded(marks: Marks, shape: tuple[int, ...], rank: int) -> tuple[Marks, tuple[int, ...]]:
    """Dimensions of size 1 in front, as broadcasting adds them."""
    more = (1,) * (rank - len(shape))
    return tuple(x.reshape(more + x.shape) for x in marks), more + tuple(shape)
