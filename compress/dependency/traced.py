"""The traced model: what its first pass left behind, and the labels of its tensors, which are settled by then."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from compress.dependency.labels import Array, Labels
from compress.dependency.record import Named, Record

Address = tuple[int, int, int]


class Traced:
    """A traced model, by its labels.

    Attributes:
        dims: (name of a parameter or buffer, dimension) -> its labels, in the order in which the trace met them.
    """

    def __init__(self, labels: Labels, record: Record) -> None:
        self.labels, self.record = labels, record
        self.dims = {(name, dim): ids for name, dims in record.named.items() for dim, ids in dims.items()}
        self._resolved: dict[Address, tuple[Array, list[Array]]] = {}

    def resolved(self, ids: Array) -> list[Array]:
        """Representatives of labels (n,), as arrays (n,). Tensors with the same labels mostly share the array."""
        key = address(ids)
        if key not in self._resolved:  # the array is kept with what was found, so that no other takes its address
            self._resolved[key] = ids, [np.broadcast_to(a, ids.shape) for a in self.labels.resolved((ids,))]
        return self._resolved[key][1]

    def after(self, lost: Iterable[Array]) -> Named:
        """The labels that every tensor has left when these representatives are gone."""
        gone = np.zeros(self.labels.count, dtype=bool)
        gone[np.concatenate([*lost, np.zeros(0, np.int64)])] = True
        after: Named = {}
        left: dict[Address, Array] = {}
        for (name, dim), ids in self.dims.items():
            key = address(ids)
            if key not in left:
                dead = np.zeros(len(ids), dtype=bool)
                for array in self.resolved(ids):
                    dead |= gone[array]
                left[key] = ids[~dead]
            after.setdefault(name, {})[dim] = left[key]
        return after


def address(ids: Array) -> Address:
    """Where the numbers of a 1-D array lie in memory: two views of the same numbers have the same address."""
    return ids.__array_interface__["data"][0], len(ids), ids.strides[0]
