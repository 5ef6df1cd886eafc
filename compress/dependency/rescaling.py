"""Rescaling: numbers that a forward derives from widths, such as the 1 / sqrt(width of a head) of attention."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from compress.dependency.families import Families
from compress.dependency.group import Indices, Keeps, Rescaling
from compress.dependency.labels import Marks, Reasons
from compress.dependency.record import Named, Record

TOLERANCE = 1e-6


def rescalings(families: Families, after: Record, keeps: Keeps) -> tuple[dict[int, list[Rescaling]], Reasons]:
    """Compare the plain numbers by which the whole and the cut network multiply.

    Args:
        after: what the pass of the cut network left behind.
        keeps: for each family the channels that were kept.

    Returns:
        For each family what makes good for the numbers that changed with its width, in the rows that they multiply; and
        the labels for which that cannot be done, with the reason.
    """
    before = families.traced.record
    if len(before.scaled) != len(after.scaled):
        every = range(len(families.each))
        return {}, families.stay(every, "its forward goes another way with other widths")
    found: dict[int, list[Rescaling]] = defaultdict(list)
    wrong: Reasons = {}
    for (was, marks, line), (now, *_) in zip(before.scaled, after.scaled, strict=True):
        if was == now:
            continue
        concerned = families.of(marks) - {-1}
        power = _power(was, now, {i: (len(families.each[i].members), len(keeps[i])) for i in concerned})
        rows = _rows(before.named, marks)
        if power is None or not rows:
            wrong.update(families.stay(concerned, f"its forward multiplies by a number that depends on it{line}"))
        else:
            family, exponent = power
            found[family] += [Rescaling(module, at, -exponent) for module, at in rows]
    return found, wrong


def _power(was: float, now: float, widths: dict[int, tuple[int, int]]) -> tuple[int, float] | None:
    """The family of which a power of the width is a factor of the number, and the exponent, a multiple of 1/4.

    Of several the one whose power is all of the number. `widths` are those before and after the cut.
    """
    found = []
    for family, (width, left) in sorted(widths.items()) if was > 0 and now > 0 else ():
        exponent = np.log(now / was) / np.log(left / width)
        if abs(4 * exponent - round(4 * exponent)) < TOLERANCE:
            exponent = round(4 * exponent) / 4
            found.append((abs(np.log(was / width**exponent)) > TOLERANCE, family, exponent))
    return min(found)[1:] if found else None


def _rows(named: Named, marks: Marks) -> list[tuple[str, Indices]]:
    """(module, rows) of the layers whose outputs these are; empty unless all of them are some layer's rows."""
    ids = np.unique(np.concatenate([m.ravel() for m in marks]))
    ids, found = ids[ids != 0], []
    for name, dims in reversed(named.items()):  # of a layer and its norm the norm, which comes last
        if name.endswith("weight") and 0 in dims:
            at = np.flatnonzero(np.isin(dims[0], ids))
            if len(at):
                found.append((name.rpartition(".")[0], at))
                ids = np.setdiff1d(ids, dims[0])
    return found if not len(ids) else []
