"""Attributes: the plain numbers of modules that say how wide a tensor is, and what they become when it is cut."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from compress.dependency.group import Attribute, Width
from compress.dependency.labels import Array, Marks, Reasons, along
from compress.dependency.sizes import LAYERS, Modules
from compress.dependency.ties import Ties
from compress.dependency.traced import Traced
from compress.dependency.widths import Widths

SIZES = re.compile("head|dim|chan|chs|width|feat|planes|hidden|embed|split")  # sizes; not windows, steps, depths
Sized = tuple[int, Marks]  # a dimension's size, and its labels as 1-D arrays
Holder = tuple[str, str]  # module, attribute
Read = dict[Holder, dict[int | None, Width]]  # module and attribute -> place in a list, or None -> width


@dataclass(frozen=True)
class Dimensions:
    """The dimensions of which a module's plain numbers may be the size.

    Attributes:
        read: module and attribute -> place in a list, or None -> the dimensions that it was the size of, and how often
            it goes into each.
        moved: module -> dimensions of what it reshaped, sliced or split.
        lists: module, and the parts of what it concatenated or split.
    """

    read: dict[Holder, dict[int | None, list[tuple[Sized, int]]]]
    moved: dict[str, list[Sized]]
    lists: list[tuple[str, tuple[Sized, ...]]]

    @classmethod
    def of(cls, traced: Traced) -> Dimensions:
        """The dimensions in what a model's first pass left behind."""
        record, memo = traced.record, dict[int, list[Array]]()

        def sized(size: int, marks: Marks, dim: int) -> Sized:
            for mark in marks:
                if id(mark) not in memo:
                    memo[id(mark)] = traced.labels.resolved((mark,))
            return size, along([m for mark in marks for m in memo[id(mark)]], dim)

        read: dict[Holder, dict[int | None, list[tuple[Sized, int]]]] = {}
        for number, marks, dim in record.reads:
            places = read.setdefault((number.module, number.attribute), {})
            places.setdefault(number.index, []).append((sized(int(number), marks, dim), number.times))
        moved: dict[str, list[Sized]] = defaultdict(list)
        for module, shape, marks in record.moved:
            if found := [each for dim, n in enumerate(shape) if (each := sized(n, marks, dim))[1]]:
                moved[module] += found
        lists = [(module, tuple(sized(*part) for part in parts)) for module, parts in record.lists]
        return cls(read, moved, lists)


def widths_read(dimensions: Dimensions, widths: Widths, ties: Ties, modules: Modules) -> tuple[Read, Ties, Reasons]:
    """The widths that numbers stand for which a forward was seen to read; families with one number are tied.

    Returns:
        The widths, the ties, and the labels of families that have one number and cannot be tied, with the reason.
    """
    read: Read = {}
    wrong: Reasons = {}
    for (module, attribute), places in dimensions.read.items():
        for index, sizes in places.items():
            each = [part for sized, times in sizes for part in _parts(widths.of(*sized), times, widths, ties)]
            if not any(len(width.indices) for width in each):
                continue  # nothing of it is ever cut
            if joined := _alike(each, widths, ties):
                ties = joined
            else:
                whose = f"{type(modules[module]).__name__} `{module}`"
                reason = f"{whose} has one number, `{attribute}`, for several widths"
                wrong.update(widths.families.stay(set().union(*map(widths.families_of, each)), reason))
            read.setdefault((module, attribute), {})[index] = each[0]
    return read, ties, wrong


def _parts(width: Width, times: int, widths: Widths, ties: Ties) -> list[Width]:
    """The parts of a dimension that is several times as large as the number, one after the other or interleaved."""
    if times == 1:
        return [width]
    size, at = width.size // times, width.indices
    for part, index in ((at // size, at % size), (at % times, at // times)):
        parts = [Width(size, index[part == n], width.channels[part == n]) for n in range(times)]
        if len({widths.form(p, ties) for p in parts}) == 1:
            return parts[:1]
    return parts


def _alike(each: Sequence[Width], widths: Widths, ties: Ties) -> Ties | None:
    """The ties under which these widths shrink alike; None where there are none."""
    if len({widths.form(width, ties) for width in each}) == 1:
        return ties
    families = {widths.sole_family(width) for width in each}
    return None if None in families else ties.joined(widths.families, {i for i in families if i is not None})


def attributes(dimensions: Dimensions, read: Read, widths: Widths, modules: Modules) -> Iterator[Attribute]:
    """The attributes that follow from the widths of families: of layers, those that were seen being read, and others.

    Args:
        read: the widths of those that were seen being read.
        modules: those of the whole network, by name.
    """
    record = widths.families.traced.record
    for name, (count, marks) in record.groups.items():
        attribute = "num_groups" if isinstance(modules[name], nn.GroupNorm) else "groups"
        if hasattr(modules[name], attribute):
            yield Attribute(name, attribute, (widths.of(count, marks),))
    for name, shape, marks in record.norms:
        if hasattr(modules[name], "normalized_shape"):
            each = tuple(widths.of(n, along(marks, dim)) for dim, n in enumerate(shape))
            yield Attribute(name, "normalized_shape", each, several=True)
    nothing = np.zeros(0, dtype=np.intp)
    for (name, attribute), places in read.items():
        if None in places:
            yield Attribute(name, attribute, (places[None],))
        else:
            numbers = enumerate(getattr(modules[name], attribute))
            each = tuple(places.get(i, Width(n, nothing, nothing)) for i, n in numbers)
            yield Attribute(name, attribute, each, several=True)
    yield from _numbers(dimensions, widths, modules)
    yield from _lists(dimensions, widths, modules)


def _numbers(dimensions: Dimensions, widths: Widths, modules: Modules) -> Iterator[Attribute]:
    """Whole numbers that nobody saw being read, and that are the size of what the module's forward moves."""
    for name, sizes in dimensions.moved.items():
        if isinstance(modules[name], LAYERS):
            continue
        each = [widths.of(*sized) for sized in sizes]
        for attribute, value in vars(modules[name]).items():
            if type(value) is int and SIZES.search(attribute) and (name, attribute) not in dimensions.read:
                fitting = [w for w in each if w.size == value and len(w.indices)]
                if fitting:
                    yield Attribute(name, attribute, (_named(attribute, fitting, widths),))


def _lists(dimensions: Dimensions, widths: Widths, modules: Modules) -> Iterator[Attribute]:
    """Lists that are the sizes of what a module's forward concatenates or splits, or of the first of it."""
    for name, parts in dimensions.lists:
        sizes = tuple(size for size, _ in parts)
        for attribute, value in vars(modules[name]).items():
            fits = SIZES.search(attribute) and isinstance(value, tuple | list) and value
            if fits and tuple(value) == sizes[: len(value)] and (name, attribute) not in dimensions.read:
                each = tuple(widths.of(*part) for part in parts[: len(value)])
                yield Attribute(name, attribute, each, several=True)


def _named(attribute: str, each: Sequence[Width], widths: Widths) -> Width:
    """Choose, of several widths that are equal by chance, the one that the attribute's name speaks of."""
    wanted = "heads" if "heads" in attribute else "head widths" if "dim" in attribute else "channels"
    families = widths.families.each
    for width in each:
        if {families[i].kind for i in widths.families_of(width)} == {wanted}:
            return width
    return each[0]
