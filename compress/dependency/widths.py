"""Widths: the sizes of dimensions, with the channels of families that go from them."""

from __future__ import annotations

import numpy as np

from compress.dependency.families import Families
from compress.dependency.group import Indices, Width
from compress.dependency.labels import Array, Marks
from compress.dependency.ties import Ties
from compress.dependency.traced import Address, address

Placed = tuple[int, Indices, Indices]


class Widths:
    """Computes widths, and keeps them: tensors with the same labels mostly share the array."""

    def __init__(self, families: Families) -> None:
        self.families = families
        self.starts = np.cumsum([0, *(len(family.members) for family in families.each)])  # among all channels
        self._placed: dict[Address, list[Placed]] = {}
        self._widths: dict[tuple[int | Address, ...], Width] = {}

    def place(self, ids: Array) -> list[Placed]:
        """(family, indices, the family's channel at each index) for all families with some of these labels (n,)."""
        key = address(ids)
        if key not in self._placed:
            self._placed[key] = found = []
            owner, unit = self.families.places
            for array in self.families.traced.resolved(ids):
                owners = owner[array]
                order = np.argsort(owners, kind="stable")
                starts = np.flatnonzero(np.diff(owners[order], prepend=-2))
                for at in np.split(order, starts[1:]):
                    if (family := int(owners[at[0]])) >= 0:
                        found.append((family, at, unit[array[at]]))
        return self._placed[key]

    def of(self, size: int, marks: Marks) -> Width:
        """The width of a dimension with these marks, each (size,)."""
        key: tuple[int | Address, ...] = (size, *(address(mark) for mark in marks))
        if key not in self._widths:
            placed = [p for mark in marks for p in self.place(mark)]
            indices = [np.zeros(0, dtype=np.intp), *(at for _, at, _ in placed)]
            channels = [np.zeros(0, dtype=np.intp), *(self.starts[family] + units for family, _, units in placed)]
            self._widths[key] = Width(size, np.concatenate(indices), np.concatenate(channels))
        return self._widths[key]

    def families_of(self, width: Width) -> set[int]:
        """The families whose channels go from a dimension."""
        return set(np.unique(self._owners(width.channels)).tolist())

    def sole_family(self, width: Width) -> int | None:
        """The family of which this is the width, and the whole of it; None where it is anything else."""
        families = [*self.families_of(width)]
        if len(families) == 1 and len(width.indices) == width.size == len(self.families.each[families[0]].members):
            return families[0]
        return None

    def form(self, width: Width, ties: Ties) -> tuple[int, bytes]:
        """Equal for two widths that shrink alike, where families that are tied count as one."""
        owners = self._owners(width.channels)
        first = np.array([ties.first.get(i, i) for i in range(len(self.families.each))], dtype=np.intp)
        channels = width.channels - self.starts[owners] + self.starts[first[owners]]
        order = np.lexsort((channels, width.indices))
        indices, channels = width.indices[order], channels[order]
        starts = np.flatnonzero(np.diff(indices, prepend=-1))
        counts = np.diff([*starts, len(indices)])
        place = np.arange(len(indices)) - np.repeat(starts, counts)
        rows = np.full((len(starts), int(place.max(initial=0)) + 1), -1)
        rows[np.repeat(np.arange(len(starts)), counts), place] = channels
        return width.size, rows[np.lexsort(rows.T)].tobytes()

    def _owners(self, channels: Indices) -> Indices:
        return np.searchsorted(self.starts, channels, side="right") - 1
