"""Ties: families that have to stay equally wide, such as the parts into which a forward cuts a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from compress.dependency.families import Families
from compress.dependency.labels import Array, Reasons, varying
from compress.dependency.record import Record

UNTIED = "its parts have to stay equally wide, and depend on others differently"


@dataclass(frozen=True)
class Ties:
    """Which families are tied: `first` has for each of them the first of those that it is tied to."""

    first: Mapping[int, int] = field(default_factory=dict)

    def joined(self, families: Families, tied: set[int]) -> Ties | None:
        """The ties when these families are tied too; None where they are not equally wide to begin with."""
        if len({len(families.each[i].members) for i in tied}) > 1:
            return None
        firsts = {self.first.get(i) for i in tied}
        joined = tied | {i for i, first in self.first.items() if first in firsts}
        return Ties({**self.first, **dict.fromkeys(joined, min(joined))})


def tied_parts(families: Families) -> tuple[Ties, Reasons]:
    """The ties of parts that a forward takes, and the labels of parts that cannot be tied, with the reason."""
    ties, untied, record = Ties(), Reasons(), families.traced.record
    for parts in record.parts:
        each = [families.of((part,)) for part in parts]
        common = set.intersection(*each)
        rest = [own - common for own in each]
        distinct = set().union(*rest)
        if not distinct:
            continue
        single = -1 not in distinct and all(len(own) == 1 for own in rest)
        if joined := ties.joined(families, distinct) if single else None:
            ties = joined
        else:
            untied.update(families.stay(distinct, UNTIED))
    for parts in _equal_parts(record):
        each = [families.of((part,)) for part in parts]
        distinct = set().union(*each)
        alone = len(distinct) == len(each) == sum(len(own) for own in each)
        if alone and -1 not in distinct and not distinct & ties.first.keys():
            ties = ties.joined(families, distinct) or ties
    return ties, untied


def _equal_parts(record: Record) -> Iterator[tuple[Array, ...]]:
    """The parts of widths that slices cut into equal parts, in order: it may be by halves of any width."""
    found: dict[bytes, tuple[Array, dict[bytes, Array]]] = {}
    for mark, piece in record.pieces:
        if len(varying(mark)) == 1 and piece.size > 1:
            found.setdefault(mark.tobytes(), (mark, {}))[1].setdefault(piece.tobytes(), piece)
    for mark, pieces in found.values():
        place = {int(label): i for i, label in enumerate(mark.ravel())}
        bounds = {0, mark.size}
        for piece in pieces.values():
            bounds |= {place[int(piece.flat[0])], place[int(piece.flat[-1])] + 1}
        parts = np.split(mark.ravel(), sorted(bounds - {0, mark.size}))  # what no slice took is a part too
        if len({part.size for part in parts}) == 1:
            yield tuple(parts)
