"""Families: labels sorted into those that go together, and named after the layers that make them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from compress.dependency.group import CLASSES, Indices, Keeps
from compress.dependency.labels import Array, Marks, Reasons
from compress.dependency.sizes import Modules
from compress.dependency.traced import Traced, address


@dataclass(frozen=True, eq=False)
class Family:
    """One group's labels: `members` (width,) are their representatives, one per channel."""

    name: str
    kind: str
    members: Array


@dataclass(frozen=True, eq=False)
class Families:
    """The labels of a traced model, sorted. A family's number is its place in `each`; -1 stands for none.

    Attributes:
        each: the families that may be cut.
        whole: name of a family that stays whole -> why.
    """

    traced: Traced
    each: tuple[Family, ...]
    whole: dict[str, str]

    @cached_property
    def places(self) -> tuple[Array, Indices]:
        """For each representative the number of its family, and its place among the members."""
        owner, unit = np.full(self.traced.labels.count, -1), np.zeros(self.traced.labels.count, dtype=np.intp)
        for i, family in enumerate(self.each):
            owner[family.members], unit[family.members] = i, np.arange(len(family.members))
        return owner, unit

    def of(self, marks: Marks) -> set[int]:
        """The families that have some of these labels, with -1 where some labels have none."""
        roots = np.concatenate([*(a.ravel() for a in self.traced.labels.resolved(marks)), np.zeros(0, np.int64)])
        return set(np.unique(self.places[0][roots[roots != 0]]).tolist())

    def inside(self, module: str) -> set[int]:
        """The families that have tensors of a module; all of them, where it has none."""
        prefix = f"{module}." if module else ""
        own = [self.of((ids,)) for (name, _), ids in self.traced.dims.items() if name.startswith(prefix)]
        return set().union(*own) - {-1} or {*range(len(self.each))}

    def stay(self, families: Iterable[int], reason: str) -> Reasons:
        """Representative -> reason, for all labels of these families."""
        return {int(label): reason for i in families if i >= 0 for label in self.each[i].members}

    def lost(self, keeps: Keeps) -> list[Array]:
        """For each family the representatives that go when these channels are kept."""
        return [np.delete(family.members, keep) for family, keep in zip(self.each, keeps, strict=True)]


class Sorter:
    """Sorts the labels of a traced model; it keeps what does not depend on which of them have to stay.

    Args:
        modules: the model's, by name.
        normalized: whether widths that a norm normalizes over may be cut.
        classifier: name of the layer that gives the logits.
    """

    def __init__(self, traced: Traced, modules: Modules, *, normalized: bool, classifier: str) -> None:
        self.traced, self.normalized, self.classifier = traced, normalized, classifier
        self.makers, self.layers = _makers(traced, modules)
        random = np.random.default_rng(0)
        self.places = np.zeros(traced.labels.count, dtype=np.uint64)  # the same for labels that occur in the same ones
        self.apart = self.places.copy()
        first = [np.zeros(0, np.int64)]
        for ids in {address(ids): ids for ids in traced.dims.values()}.values():
            for array in traced.resolved(ids):
                unique, at = np.unique(array, return_index=True)
                self.places[unique] += random.integers(1, 2**63, dtype=np.uint64)
                first.append(unique[np.argsort(at)])
        for _, piece in traced.record.pieces:
            for array in traced.labels.resolved((piece,)):
                self.apart[np.unique(array)] += random.integers(1, 2**63, dtype=np.uint64)
        order = np.concatenate(first)
        _, at = np.unique(order, return_index=True)
        order = order[np.sort(at)]
        self.order = order[order != 0]  # as the model's tensors have them

    def sorted(self, stays: Reasons) -> Families:
        """The families when these labels have to stay: `stays` are their representatives, and why."""
        labels = self.traced.labels
        kinds = labels.kinds
        roots = labels.find(np.array([*kinds], dtype=np.int64))
        kind_of = dict(zip(roots.tolist(), kinds.values(), strict=True))
        taken: dict[tuple[str, str], int] = defaultdict(int)
        each, whole = [], {}
        for members in self._together(stays):
            first = self.makers[members].max()
            if first < 0:  # columns of the image's own channels, a filter's pixels
                continue
            layer, kind = self.layers[first], kind_of.get(int(members[0]), "channels")
            taken[layer, kind] += 1
            name = layer if kind == "channels" else f"{layer} {kind}"
            name += f" #{taken[layer, kind]}" if taken[layer, kind] > 1 else ""
            if why := self._why(layer, members, stays):
                whole[name] = why
            else:
                each.append(Family(name, kind, members))
        return Families(self.traced, tuple(each), whole)

    def _together(self, stays: Reasons) -> list[Array]:
        """Representatives that occur in the same places, together, in the order in which each place was met.

        Labels that stay are told from others, but not by the parts that a forward takes: it may treat those apart.
        """
        stay = self.traced.labels.stay(self.order, normalized=self.normalized)
        stay[np.isin(self.order, list(stays))] = True
        places = self.places[self.order] + np.where(stay, np.uint64(0), self.apart[self.order])
        _, first, kind = np.unique(places << np.uint64(1) | stay, return_index=True, return_inverse=True)
        together = np.argsort(first[kind], kind="stable")
        starts = np.flatnonzero(np.diff(first[kind][together], prepend=-1))
        return np.split(self.order[together], starts[1:])[: len(starts)]  # none where there is none

    def _why(self, layer: str, members: Array, stays: Reasons) -> str:
        """Why a family stays whole, "" if it need not."""
        labels, label = self.traced.labels, int(members[0])
        if layer == self.classifier:
            return CLASSES
        why = stays.get(label) or labels.why_fixed(label)
        if not why and not self.normalized:
            why = labels.why_normalized(label)
        return why or ("all its channels are needed together" if len(members) == 1 else "")


def _makers(traced: Traced, modules: Modules) -> tuple[Array, list[str]]:
    """For each representative the layer that first gives it out; see `Sorter`."""
    makers = np.full(traced.labels.count, -1)
    layers: list[str] = []
    for (name, dim), ids in reversed(traced.dims.items()):
        module, _, leaf = name.rpartition(".")
        module, parametrized, of = module.partition(".parametrizations.")
        leaf = of.partition(".")[0] if parametrized else leaf
        layer = modules[module]
        out = 1 if getattr(layer, "transposed", False) or isinstance(layer, nn.Embedding) else 0
        if dim == out and "weight" in leaf and getattr(layer, leaf).dim() > 1:  # not a table of positions
            for array in traced.resolved(ids):
                makers[array] = len(layers)
            layers.append(module)
    return makers, layers
