"""Attributes: the plain numbers of modules that say how wide a tensor is, and what they become when it is cut."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from compress.dependency.group import Attribute, Width
from compress.dependency.labels import Array, Labels, Marks, along
from compress.dependency.record import Record
from compress.dependency.sizes import LAYERS

if TYPE_CHECKING:
    from compress.dependency.families import Families

SIZES = re.compile("head|dim|chan|chs|width|feat|planes|hidden|embed|split")  # sizes; not windows, steps, depths
Sized = tuple[int, Marks]  # a dimension's size, and its labels as 1-D arrays
Holder = tuple[str, str]  # module, attribute


@dataclass
class Dimensions:
    """What a trace saw of the sizes of labelled dimensions, with the labels that they have when it is over.

    Attributes:
        read: module, attribute -> place in a list (None) -> the dimensions that it was the size of, and how often.
        moved: module -> dimensions of what it reshaped, sliced or split.
        lists: module and the parts of what it concatenated or split.
    """

    read: dict[Holder, dict[int | None, list[tuple[Sized, int]]]] = field(default_factory=dict)
    moved: dict[str, list[Sized]] = field(default_factory=lambda: defaultdict(list))
    lists: list[tuple[str, tuple[Sized, ...]]] = field(default_factory=list)

    @classmethod
    def of(cls, record: Record, labels: Labels) -> Dimensions:
        found, memo = cls(), dict[int, list[Array]]()

        def sized(size: int, marks: Marks, dim: int) -> Sized:
            for mark in marks:
                if id(mark) not in memo:
                    memo[id(mark)] = labels.resolved((mark,))
            return size, along([m for mark in marks for m in memo[id(mark)]], dim)

        for read in record.reads:
            size = read.size
            places = found.read.setdefault((size.module, size.attribute), {})
            places.setdefault(size.index, []).append((sized(int(size), read.marks, read.dim), size.times))
        for moved in record.moved:
            for dim, n in enumerate(moved.shape):
                if (each := sized(n, moved.marks, dim))[1]:
                    found.moved[moved.module].append(each)
        for module, parts in record.lists:
            found.lists.append((module, tuple(sized(n, marks, dim) for n, marks, dim in parts)))
        return found


class Attributes:
    """Which attributes follow from the widths of groups.

    Attributes:
        wrong: labels of groups on which one number depends in several ways, and why they stay.
    """

    def __init__(self, families: Families, dimensions: Dimensions) -> None:
        self.families, self.modules, self.dimensions = families, families.modules, dimensions
        self.wrong: dict[int, str] = {}
        self.read: dict[Holder, dict[int | None, Width]] = {}
        for holder, places in dimensions.read.items():
            for index, sizes in places.items():
                width = self._agreed(
                    holder, [self._part(w, n) for (size, m), n in sizes for w in [self._width(size, m)]]
                )
                if width is not None:
                    self.read.setdefault(holder, {})[index] = width

    def _width(self, size: int, marks: Marks) -> Width:
        return self.families.width(size, marks)

    def _part(self, width: Width, times: int) -> list[Width]:
        """The parts of a dimension that is several times as large as the number, one after the other or interleaved."""
        if times == 1:
            return [width]
        each = width.size // times
        at = width.indices
        for part, index in ((at // each, at % each), (at % times, at // times)):
            parts = [Width(each, index[part == n], width.channels[part == n]) for n in range(times)]
            if len({self._form(p) for p in parts}) == 1:
                return parts[:1]
        return parts

    def _agreed(self, holder: Holder, widths: list[list[Width]]) -> Width | None:
        """The width that a number stands for; None where nothing of it is ever cut."""
        each = [width for parts in widths for width in parts]
        if not any(len(width.indices) for width in each):
            return None
        if len({self._form(width) for width in each}) > 1:
            groups = [self.families.sole_group(width) for width in each]
            if None in groups or not self.families.tie_({g for g in groups if g is not None}):
                module, attribute = holder
                whose = f"{type(self.modules[module]).__name__} `{module}`"
                reason = f"{whose} has one number, `{attribute}`, for several widths"
                roots = self.families.members_of(np.concatenate([w.channels for w in each]))
                self.wrong.update(dict.fromkeys(roots, reason))
        return each[0]

    def _form(self, width: Width) -> tuple[int, bytes]:
        """Equal where two widths shrink alike, groups that are tied taken for one."""
        channels = self.families.tied_channels(width.channels)
        order = np.lexsort((channels, width.indices))
        indices, channels = width.indices[order], channels[order]
        starts = np.flatnonzero(np.diff(indices, prepend=-1))
        place = np.arange(len(indices)) - np.repeat(starts, np.diff([*starts, len(indices)]))
        rows = np.full((len(starts), int(place.max(initial=0)) + 1), -1)
        rows[np.repeat(np.arange(len(starts)), np.diff([*starts, len(indices)])), place] = channels
        return width.size, rows[np.lexsort(rows.T)].tobytes()

    def found(self) -> Iterator[Attribute]:
        record = self.families.record
        for name, (count, marks) in record.groups.items():
            layer = self.modules[name]
            attribute = "num_groups" if isinstance(layer, nn.GroupNorm) else "groups"
            if hasattr(layer, attribute):
                yield Attribute(name, attribute, (self._width(count, marks),))
        for name, shape, marks in record.norms:
            if hasattr(self.modules[name], "normalized_shape"):
                widths = tuple(self._width(n, along(marks, d)) for d, n in enumerate(shape))
                yield Attribute(name, "normalized_shape", widths, several=True)
        for (name, attribute), places in self.read.items():
            if None in places:
                yield Attribute(name, attribute, (places[None],))
            else:
                nothing = np.zeros(0, dtype=np.intp)
                whole = [Width(n, nothing, nothing) for n in getattr(self.modules[name], attribute)]
                yield Attribute(
                    name, attribute, tuple(places.get(i, w) for i, w in enumerate(whole)), several=True
                )  # fmt: skip
        yield from self._numbers()
        yield from self._lists()

    def _numbers(self) -> Iterator[Attribute]:
        """Whole numbers that nobody saw being read, and that are the size of what the module's forward moves."""
        for name, sizes in self.dimensions.moved.items():
            module = self.modules[name]
            widths = [self._width(size, marks) for size, marks in sizes]
            if isinstance(module, LAYERS):
                continue
            for attribute, value in vars(module).items():
                if type(value) is int and SIZES.search(attribute) and (name, attribute) not in self.dimensions.read:
                    fitting = [w for w in widths if w.size == value and len(w.indices)]
                    if fitting:
                        yield Attribute(name, attribute, (self._named(attribute, fitting),))

    def _lists(self) -> Iterator[Attribute]:
        """Lists that are the sizes of what a module's forward concatenates or splits, or of the first of it."""
        for name, parts in self.dimensions.lists:
            module = self.modules[name]
            sizes = tuple(size for size, _ in parts)
            for attribute, value in vars(module).items():
                fits = SIZES.search(attribute) and isinstance(value, tuple | list) and value
                if fits and tuple(value) == sizes[: len(value)] and (name, attribute) not in self.dimensions.read:
                    widths = tuple(self._width(size, marks) for size, marks in parts[: len(value)])
                    yield Attribute(name, attribute, widths, several=True)

    def _named(self, attribute: str, widths: Sequence[Width]) -> Width:
        """Of several sizes that are equal by chance, the one that the attribute's name speaks of."""
        wanted = "heads" if "heads" in attribute else "head widths" if "dim" in attribute else "channels"
        for width in widths:
            if self.families.kinds_of(width) == {wanted}:
                return width
        return widths[0]
