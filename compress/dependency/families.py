"""Families: labels sorted into groups, and everything that follows from a group's width."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compress.dependency.attributes import Attributes, Dimensions
from compress.dependency.group import CLASSES, Group, Grouping, Indices, Product, Rescaling, Slice, Width
from compress.dependency.labels import Array, Labels, Marks, varying
from compress.dependency.positions import culprits
from compress.dependency.record import Named, Record

UNTIED = "its parts have to stay equally wide, and depend on others differently"


Placed = tuple[int, Indices, Indices]
Address = tuple[int, int, int]


class Families:
    """The groups of a traced model.

    Args:
        dimensions: sizes that the trace saw, see compress/dependency/attributes.py.
        stays: representatives of labels that stay whole, and why.
        normalized: whether widths that a norm normalizes over may be cut.
        classifier: name of the layer that gives the logits.
    """

    def __init__(
        self,
        labels: Labels,
        record: Record,
        dimensions: Dimensions,
        model: nn.Module,
        stays: dict[int, str],
        *,
        normalized: bool,
        classifier: str,
    ) -> None:
        self.labels, self.record, self.classifier = labels, record, classifier
        self.modules = dict(model.named_modules())
        roots = labels.find(np.array([*labels.kinds], dtype=np.int64))
        self.kinds: dict[int, str] = dict(zip(roots.tolist(), labels.kinds.values(), strict=True))
        self.cells = {(name, dim): ids for name, dims in record.named.items() for dim, ids in dims.items()}
        self.resolved: dict[Address, list[Array]] = {}
        self.held: list[Array] = []
        self.placed: dict[Address, list[Placed]] = {}
        self.widths: dict[tuple[int | Address, ...], Width] = {}
        self.stays, self.normalized = stays, normalized
        self.whole: dict[str, str] = {}
        self.owner = np.full(labels.count, -1)  # of a representative: its group
        self.unit = np.zeros(labels.count, dtype=np.intp)
        self.members = self._choose(self._sort())
        for i, members in enumerate(self.members):
            self.owner[members] = i
            self.unit[members] = np.arange(len(members))
        self.starts = np.cumsum([0, *(len(members) for members in self.members)])  # of groups, among all channels
        self.unequal: dict[int, str] = {}
        self.ties: dict[int, int] = {}
        self._tie_parts()
        self.attributes = Attributes(self, dimensions)
        self.unequal.update(self.attributes.wrong)
        self.rescaled: dict[int, list[Rescaling]] = {}

    def _resolve(self, ids: Array) -> list[Array]:
        """Representatives; tensors that have the same labels mostly share the array, which is then resolved once."""
        key = _address(ids)
        if key not in self.resolved:
            self.held.append(ids)  # its address stays its own
            self.resolved[key] = [np.broadcast_to(a, ids.shape) for a in self.labels.resolved((ids,))]
        return self.resolved[key]

    def _place(self, ids: Array) -> list[Placed]:
        """(group, indices, the group's channel of each) for all groups that have some of these labels."""
        key = _address(ids)
        if key not in self.placed:
            self.placed[key] = found = []
            for array in self._resolve(ids):
                owners = self.owner[array]
                order = np.argsort(owners, kind="stable")
                starts = np.flatnonzero(np.diff(owners[order], prepend=-2))
                for at in np.split(order, starts[1:]):
                    if (group := int(owners[at[0]])) >= 0:
                        found.append((group, at, self.unit[array[at]]))
        return self.placed[key]

    def _sort(self) -> list[Array]:
        """Labels that occur in the same places, together: those of a layer that no other tells apart."""
        random = np.random.default_rng(0)
        places = np.zeros(self.labels.count, dtype=np.uint64)
        first: list[Array] = []
        for ids in {_address(ids): ids for ids in self.cells.values()}.values():
            for array in self._resolve(ids):
                unique, at = np.unique(array, return_index=True)
                places[unique] += random.integers(1, 2**63, dtype=np.uint64)
                first.append(unique[np.argsort(at)])
        apart = np.zeros(self.labels.count, dtype=np.uint64)  # what a forward takes apart it may treat apart
        for _, piece in self.record.pieces:
            for array in self.labels.resolved((piece,)):
                apart[np.unique(array)] += random.integers(1, 2**63, dtype=np.uint64)
        order = np.concatenate([*first, np.zeros(0, np.int64)])
        _, at = np.unique(order, return_index=True)
        order = order[np.sort(at)]
        order = order[order != 0]
        stay = self.labels.stay(order, normalized=self.normalized)
        stay[np.isin(order, list(self.stays))] = True
        places[order] += np.where(stay, np.uint64(0), apart[order])
        _, first_of, kind = np.unique(places[order] << np.uint64(1) | stay, return_index=True, return_inverse=True)
        together = np.argsort(first_of[kind], kind="stable")  # in the order in which each kind was met
        starts = np.flatnonzero(np.diff(first_of[kind][together], prepend=-1))
        return np.split(order[together], starts[1:])[: len(starts)]  # none where there is none

    def _why(self, label: int) -> str:
        """Why a label stays, "" if it need not."""
        why = self.stays.get(label) or self.labels.why_fixed(label)
        if not why and not self.normalized:
            why = self.labels.why_normalized(label)
        return why

    def _choose(self, found: list[Array]) -> list[Array]:
        """Those that may be cut; the others are named in `whole`."""
        makers, layers = self._makers()
        self.names: list[str] = []
        chosen: list[Array] = []
        taken: dict[tuple[str, str], int] = defaultdict(int)
        for members in found:
            first = makers[members].max()
            if first < 0:  # columns of the image's own channels, a filter's pixels
                continue
            layer = layers[first]
            kind = self.kind(members)
            why = self._why(int(members[0]))
            if layer == self.classifier:
                why = CLASSES
            if not why and len(members) == 1:
                why = "all its channels are needed together"
            taken[layer, kind] += 1
            name = layer if kind == "channels" else f"{layer} {kind}"
            name += f" #{taken[layer, kind]}" if taken[layer, kind] > 1 else ""
            if why:
                self.whole[name] = why
            else:
                self.names.append(name)
                chosen.append(members)
        return chosen

    def _makers(self) -> tuple[Array, list[str]]:
        """For each label the layer that first gives it out, as its place in a list whose last comes first; -1: none."""
        makers = np.full(self.labels.count, -1)
        layers: list[str] = []
        for (name, dim), ids in reversed(self.cells.items()):
            module, _, leaf = name.rpartition(".")
            module, parametrized, of = module.partition(".parametrizations.")
            leaf = of.partition(".")[0] if parametrized else leaf
            layer = self.modules[module]
            out = 1 if getattr(layer, "transposed", False) or isinstance(layer, nn.Embedding) else 0
            if dim == out and "weight" in leaf and getattr(layer, leaf).dim() > 1:  # not a table of positions
                for array in self._resolve(ids):
                    makers[array] = len(layers)
                layers.append(module)
        return makers, layers

    def kind(self, members: Array) -> str:
        return self.kinds.get(int(members[0]), "channels")

    def tie_(self, groups: set[int]) -> bool:
        """From now on these are equally wide; False, and nothing is done, where they are not so now."""
        if len({len(self.members[g]) for g in groups}) > 1:
            return False
        joined = groups | {g for g, root in self.ties.items() if root in {self.ties.get(d) for d in groups}}
        self.ties.update(dict.fromkeys(joined, min(joined)))
        return True

    def _tie_parts(self) -> None:
        """Groups that have to stay equally wide: of the parts into which a forward cuts a tensor."""
        for parts in self.record.parts:
            each = [self._groups_of(part) for part in parts]
            common = set.intersection(*each)
            rest = [groups - common for groups in each]
            distinct = set().union(*rest)
            if not distinct:
                continue
            if -1 in distinct or any(len(r) != 1 for r in rest) or not self.tie_(distinct):
                for g in distinct - {-1}:
                    self.unequal.update(dict.fromkeys(self.members[g].tolist(), UNTIED))
        for pieces in self._halves():
            each = [self._groups_of(piece) for piece in pieces]
            distinct = set().union(*each)
            alone = len(distinct) == len(each) == sum(len(groups) for groups in each)
            if alone and -1 not in distinct and not distinct & {*self.ties}:
                self.tie_(distinct)

    def _halves(self) -> Iterator[list[Array]]:
        """Widths that slices cut into equal parts, in order: perhaps by halves of whatever width there is."""
        found: dict[bytes, tuple[Array, dict[bytes, Array]]] = {}
        for mark, piece in self.record.pieces:
            if len(varying(mark)) == 1 and piece.size > 1:
                found.setdefault(mark.tobytes(), (mark, {}))[1].setdefault(piece.tobytes(), piece)
        for mark, pieces in found.values():
            place = {int(label): i for i, label in enumerate(mark.ravel())}
            bounds = {0, mark.size}
            for piece in pieces.values():
                bounds |= {place[int(piece.flat[0])], place[int(piece.flat[-1])] + 1}
            parts = np.split(mark.ravel(), sorted(bounds - {0, mark.size}))  # what no slice took among them
            if len({part.size for part in parts}) == 1:
                yield parts

    def _groups_of(self, part: Array) -> set[int]:
        roots = np.concatenate([a.ravel() for a in self.labels.resolved((part,))] or [np.zeros(0, np.int64)])
        return set(np.unique(self.owner[roots[roots != 0]]).tolist())

    def width(self, size: int, marks: Marks) -> Width:
        """The size of a dimension with these marks (1-D arrays)."""
        key: tuple[int | Address, ...] = (size, *(_address(mark) for mark in marks))
        if key not in self.widths:
            placed = [p for mark in marks for p in self._place(mark)]
            indices = [np.zeros(0, dtype=np.intp), *(at for _, at, _ in placed)]
            channels = [np.zeros(0, dtype=np.intp), *(self.starts[group] + units for group, _, units in placed)]
            self.widths[key] = Width(size, np.concatenate(indices), np.concatenate(channels))
        return self.widths[key]

    @cached_property
    def grouping(self) -> Grouping:
        slices: dict[int, list[Slice]] = defaultdict(list)
        for (name, dim), ids in self.cells.items():
            module, _, tensor = name.rpartition(".")
            for group, at, units in self._place(ids):
                slices[group].append(Slice(module, tensor, dim, at, units))
        groups = tuple(
            Group(
                self.names[i], len(members), tuple(slices[i]), self.kind(members),
                self.labels.why_normalized(int(members[0])), self.ties.get(i), tuple(self.rescaled.get(i, ())),
            )
            for i, members in enumerate(self.members)
        )  # fmt: skip
        products = tuple(
            Product(p.constant, tuple(self.width(size, marks) for size, marks in p.factors))
            for p in self.record.products
        )
        return Grouping(groups, self.whole, products, tuple(self.attributes.found()))

    def sole_group(self, width: Width) -> int | None:
        """The group of which this is the width, and the whole of it; None where it is anything else."""
        groups = np.unique(self._group_of(width.channels))
        if len(groups) == 1 and len(width.indices) == width.size == len(self.members[groups[0]]):
            return int(groups[0])
        return None

    def _group_of(self, channels: Indices) -> Indices:
        return np.searchsorted(self.starts, channels, side="right") - 1

    def tied_channels(self, channels: Indices) -> Indices:
        """Of groups that are tied those of the first."""
        if not len(channels):
            return channels
        groups = self._group_of(channels)
        roots = np.array([self.ties.get(g, g) for g in range(len(self.members))])[groups]
        moved: Indices = channels - self.starts[groups] + self.starts[roots]
        return moved

    def members_of(self, channels: Indices) -> list[int]:
        """Representatives of all labels of the groups that have these channels."""
        return [int(m) for g in np.unique(self._group_of(channels)).tolist() for m in self.members[g]]

    def kinds_of(self, width: Width) -> set[str]:
        return {self.kind(self.members[group]) for group in np.unique(self._group_of(width.channels)).tolist()}

    def roots(self) -> list[int]:
        return [int(m) for members in self.members for m in members]

    @property
    def all_kept(self) -> list[Indices]:
        return [np.arange(len(members)) for members in self.members]

    def lost(self, keeps: Sequence[Indices]) -> list[Array]:
        """The labels of each group that go."""
        return [np.delete(members, keep) for members, keep in zip(self.members, keeps, strict=True)]

    def moved(self, whole: Record, cut: Record, keeps: Sequence[Indices]) -> dict[int, str]:
        """Labels of the groups whose cut makes the forward take other channels than it took, and where."""
        found = culprits(self.labels, whole.steps, cut.steps, self.lost(keeps))
        return {int(m): why for groups, why in found for g in groups for m in self.members[g]}

    def labels_after(self, keeps: Sequence[Indices]) -> Named:
        """The labels of every tensor that are left after a cut."""
        gone = np.zeros(self.labels.count, dtype=bool)
        for lost in self.lost(keeps):
            gone[lost] = True
        after: Named = {}
        left: dict[Address, Array] = {}
        for (name, dim), ids in self.cells.items():
            if _address(ids) not in left:
                dead = np.zeros(len(ids), dtype=bool)
                for array in self._resolve(ids):
                    dead |= gone[array]
                left[_address(ids)] = ids[~dead]
            after.setdefault(name, {})[dim] = left[_address(ids)]
        return after

    def roots_of(self, marks: Sequence[Array]) -> list[int]:
        """All labels of the groups that have some of these."""
        concerned = {r for array in self.labels.resolved(tuple(marks)) for r in np.unique(array).tolist()}
        groups = {int(self.owner[r]) for r in concerned if r} - {-1}
        return [int(m) for g in groups for m in self.members[g]]

    def roots_inside(self, module: str) -> list[int]:
        """All labels of the groups that have tensors of a module; of every group, where it has none."""
        inside = f"{module}." if module else ""
        groups = {
            group for (name, _), ids in self.cells.items() if name.startswith(inside)
            for group, _, _ in self._place(ids)
        }  # fmt: skip
        return [int(m) for g in groups for m in self.members[g]] or self.roots()

    def learn_scales(self, after: Record, keeps: Sequence[Indices]) -> dict[int, str]:
        """Compare the plain numbers by which the whole and the cut network multiply.

        One that changed with a group's width is made good for in the rows that it multiplies. Returns the labels for
        which that cannot be done.
        """
        wrong: dict[int, str] = {}
        if len(self.record.scaled) != len(after.scaled):
            return dict.fromkeys(self.roots(), "its forward goes another way with other widths")
        for before, now in zip(self.record.scaled, after.scaled, strict=True):
            if before.number == now.number:
                continue
            groups = self._groups_of_marks(before.marks)
            found = self._exponent(before.number, now.number, groups, keeps)
            rows = self._rows(before.marks)
            if found is None or not rows:
                reason = f"its forward multiplies by a number that depends on it{before.line}"
                wrong.update({int(m): reason for g in groups for m in self.members[g]})
                continue
            group, exponent = found
            held = self.rescaled.setdefault(group, [])
            held += [Rescaling(module, at, -exponent) for module, at in rows]
        if self.rescaled and not wrong:
            groups_ = tuple(
                replace(g, rescaled=tuple(self.rescaled.get(i, ()))) for i, g in enumerate(self.grouping.groups)
            )
            self.grouping = replace(self.grouping, groups=groups_)
        return wrong

    def _groups_of_marks(self, marks: Marks) -> set[int]:
        return {g for mark in marks for g in self._groups_of(mark)} - {-1}

    def _exponent(
        self, before: float, now: float, groups: set[int], keeps: Sequence[Indices]
    ) -> tuple[int, float] | None:
        """The group whose width raised to a power is a factor of the number; of several the one that is all of it."""
        found = []
        for group in sorted(groups) if before > 0 and now > 0 else ():
            width = len(self.members[group])
            exponent = np.log(now / before) / np.log(len(keeps[group]) / width)
            if abs(4 * exponent - round(4 * exponent)) < 1e-6:
                exponent = round(4 * exponent) / 4
                found.append((abs(np.log(before / width**exponent)) > 1e-6, group, exponent))
        return min(found)[1:] if found else None

    def _rows(self, marks: Marks) -> list[tuple[str, NDArray[np.intp]]]:
        """(module, rows) of the layers whose outputs these are; empty unless all of them are some layer's rows."""
        ids = np.unique(np.concatenate([m.ravel() for m in marks]))
        ids, found = ids[ids != 0], []
        for name, dims in reversed(self.record.named.items()):  # of a layer and its norm the norm, which comes last
            if name.endswith("weight") and 0 in dims:
                at = np.flatnonzero(np.isin(dims[0], ids))
                if len(at):
                    found.append((name.rpartition(".")[0], at))
                    ids = np.setdiff1d(ids, dims[0])
        return found if not len(ids) else []


def _address(ids: Array) -> Address:
    """Where a 1-D array's numbers lie: views of one array are one."""
    return ids.__array_interface__["data"][0], len(ids), ids.strides[0]
