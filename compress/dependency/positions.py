"""Positions: after a cut every operator has to give what it gave before, without the channels that went.

A forward that slices at a fixed channel, or in halves of whatever width there is, gives other channels to its parts
when some go, and nothing need fail: the parts may meet again in the old order. So the operators of the whole and of the
cut network are compared one by one. The first that differs, though what entered it did not, is where a boundary moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.dependency.labels import Array, Labels, Marks, move, squeezed, varying

Shape = tuple[int, ...]
Gone = NDArray[np.bool_]  # of each label: whether it went
Carried = tuple[Shape, Marks]  # the shape of a tensor, and its marks
Given = tuple[Carried, ...]
Moving = Callable[[Any], Any]  # an operator that only moves numbers, as a function of its tensor


@dataclass(frozen=True)
class Step:
    """What one operator took and gave.

    Attributes:
        before: the steps that gave what entered.
        given: of each tensor, its shape and marks.
        numbers: the plain numbers among its arguments.
        entered, again: of an operator that only moves numbers, what it moved, and itself.
    """

    module: str
    operator: str
    line: str
    before: tuple[int, ...]
    given: Given
    numbers: tuple[object, ...]
    entered: Carried | None = None
    again: Moving | None = None


def culprits(
    labels: Labels, whole: Sequence[Step], cut: Sequence[Step], lost: Sequence[Array]
) -> list[tuple[set[int], str]]:
    """(groups, reason) for each operator that is the first to give other channels than those that are left.

    Args:
        whole, cut: the steps of both networks; those of the cut one may end early, where it does not run.
        lost: the labels of each group that went.
    """
    owner = np.full(labels.count, -1)
    for i, labels_ in enumerate(lost):
        owner[labels_] = i
    gone, found, wrong = owner >= 0, [], [False] * len(cut)
    for i, (before, after) in enumerate(zip(whole, cut, strict=False)):
        if (before.module, before.operator) != (after.module, after.operator):
            concerned = _groups(labels, owner, (before, after))
            found.append((concerned, f"its forward goes another way with other widths{after.line}"))
            break
        wrong[i] = not _all_left_of(labels, gone, before.given, after.given, exact=before.again is not None)
        if wrong[i] and not any(wrong[j] for j in after.before):
            what = "fixes a shape" if after.operator == "reshape" else "reads it by fixed numbers"
            reason = f"its forward {what}{after.line}"
            found.append((_guilty(labels, owner, lost, before, after), reason))
        elif before.again is None and before.numbers != after.numbers:
            reason = f"its forward computes with a number that depends on it{after.line}"
            found.append((_groups(labels, owner, (before,)), reason))
    return found


def _groups(labels: Labels, owner: Array, steps: Sequence[Step]) -> set[int]:
    """The groups that have labels in what these operators gave, or moved."""
    tensors = [t for step in steps for t in (*step.given, *([step.entered] if step.entered else []))]
    arrays = labels.resolved(tuple(m for _, marks in tensors for m in marks))
    return {int(g) for array in arrays for g in np.unique(owner[array])} - {-1}


def _guilty(labels: Labels, owner: Array, lost: Sequence[Array], before: Step, after: Step) -> set[int]:
    """The groups that move the boundary when cut alone; all that are concerned, where that does not tell."""
    concerned = _groups(labels, owner, (before,))
    if before.entered is None or before.numbers != after.numbers:  # the numbers are those of all cuts together
        return concerned
    every = np.arange(labels.count)
    moving = (g for g in concerned if not _moves_alike(labels, np.isin(every, lost[g]), before, before.again))
    return set(moving) or concerned


def _moves_alike(labels: Labels, gone: Gone, step: Step, again: Moving | None) -> bool:
    """Whether the operator, repeated on the labels that are left of what entered, gives those left of what it gave."""
    assert step.entered is not None
    assert again is not None
    shape, marks = step.entered
    arrays = labels.resolved(marks)
    if any(len(varying(a)) > 1 for a in arrays):
        return False
    smaller = list(shape)
    left: list[Array] = []
    for array in arrays:
        (dim,) = varying(array)
        dead = np.any([gone[a].ravel() for a in arrays if varying(a) == (dim,)], axis=0)
        left.append(np.compress(~dead, array, axis=dim))
        smaller[dim] = left[-1].shape[dim]
    try:
        moved = [move(a, tuple(smaller), again) for a in left]
    except (RuntimeError, IndexError):
        return False
    given = again(torch.empty(smaller, device="meta"))
    outs = given if isinstance(given, tuple | list) else (given,)
    after = tuple((tuple(t.shape), tuple(m[i] for m in moved)) for i, t in enumerate(outs))
    return _all_left_of(labels, gone, step.given, after, exact=True)


def _all_left_of(labels: Labels, gone: Gone, before: Given, after: Given, *, exact: bool) -> bool:
    """Whether all tensors that an operator gave are left of those that it gave before; see `_left_of`."""
    return len(before) == len(after) and all(
        _left_of(labels, gone, one, other, exact=exact) for one, other in zip(before, after, strict=True)
    )


def _left_of(labels: Labels, gone: Gone, before: Carried, after: Carried, *, exact: bool) -> bool:
    """Whether a tensor after the cut has the labels it had, in their order, without those that went.

    Args:
        exact: whether dimensions without labels have to be as long as they were.
    """
    (shape, marks), (now, present) = before, after
    if len(shape) != len(now):
        return False
    arrays, candidates = labels.resolved(marks), labels.resolved(present)
    labelled: set[int] = set()
    for array in arrays:
        dims = varying(array)
        labelled |= set(dims)
        rest = array[~_dead(array, arrays, gone)]
        if rest.size != int(np.prod([now[d] for d in dims])):
            return False
        lone = not dims and exact  # a single channel that was sliced
        if (lone or len(np.unique(rest)) > 1) and not any(_is(c, rest, dims, now) for c in candidates):
            return False
    return not exact or all(n == m for d, (n, m) in enumerate(zip(shape, now, strict=True)) if d not in labelled)


def _dead(array: Array, arrays: Sequence[Array], gone: Gone) -> NDArray[np.bool_]:
    """The elements of one array that go: with its own labels, or with those of others along the same dimensions."""
    dims = varying(array)
    dead: NDArray[np.bool_] = gone[array]
    for other in arrays:
        if other is not array and set(varying(other)) & set(dims):
            lost: NDArray[np.bool_] = gone[other]
            if across := tuple(d for d in varying(other) if d not in dims):
                lost = np.asarray(lost.all(axis=across, keepdims=True))
            dead = dead | lost
    return dead


def _is(candidate: Array, rest: Array, dims: tuple[int, ...], shape: Shape) -> bool:
    """0 in the candidate stands for a label that was dropped with a width of one."""
    if not set(varying(squeezed(candidate))) <= set(dims):
        return False
    full = np.broadcast_to(candidate, [n if d in dims else 1 for d, n in enumerate(shape)]).ravel()
    return bool(((full == rest) | (full == 0)).all())
