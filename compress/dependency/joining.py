"""Rules for operators that join numbers: element by element, in windows, along dimensions, or in an order."""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from torch import Tensor

from compress.dependency.labelling import PIXELS, Call, Labelling
from compress.dependency.labels import aligned, varying

aten = torch.ops.aten
SCALINGS = (aten.mul, aten.mul_, aten.div, aten.div_)


def elementwise(labelling: Labelling, call: Call) -> None:
    """Computes each number from those at the same place, with broadcasting: labels of elements that meet are united."""
    inputs = [t for t in (*call.args, *call.kwargs.values()) if isinstance(t, Tensor)]
    labelled = [t for t in inputs if labelling.of(t)]
    if not labelled:
        return
    first, rank = labelled[0], call.out.dim()
    if call.operator in SCALINGS:
        numbers = [a for a in call.args[1:] if isinstance(a, int | float)]
        lone = [t for t in call.args[1:] if isinstance(t, Tensor) and t.dim() == 0 and t.device.type == "cpu"]
        for number in [*numbers, *map(float, lone)][:1]:
            labelling.note_scaled(number, labelling.of(first))
    for other in inputs:
        if other is not first and other.dim():
            labelling.meet(first, other)
    marks = list(aligned(labelling.of(first), rank))
    broadcast = {d for d, n in enumerate((1,) * (rank - first.dim()) + tuple(first.shape)) if n == 1}
    for other in labelled[1:]:
        marks += [m for m in aligned(labelling.of(other), rank) if set(varying(m)) <= broadcast]
    labelling.give(call.out, marks)


def windows(labelling: Labelling, call: Call) -> None:
    """Pools, resizes or pads by other pixels: those of a channel are joined, along as many dimensions as named."""
    (dims,) = re.findall(r"(\d)d", str(call.operator))
    spatial = tuple(range(max(1, call.x.dim() - int(dims)), call.x.dim()))
    marks = labelling.coupling.level(labelling.of(call.x), spatial, PIXELS)
    for t in call.outs:
        labelling.give(t, marks)


def unpooling(labelling: Labelling, call: Call) -> None:
    """Puts each number at the pixel that another tensor says."""
    labelling.meet(call.x, call.args[1])
    labelling.give(call.out, labelling.of(call.x))


def reducing(labelling: Labelling, call: Call) -> None:
    """Takes sums, means or maxima: along their dimensions labels are united."""
    x = call.x
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):  # the larger of two
        elementwise(labelling, call)
        return
    given = call.argument(2 if call.operator in (aten.linalg_vector_norm, aten.norm) else 1, "dim")
    dims = range(x.dim()) if given is None or given == [] else [given] if isinstance(given, int) else given
    dims = tuple(d % x.dim() for d in dims) if x.dim() else ()
    marks = labelling.coupling.level(labelling.of(x), dims, "it is summed or averaged over")
    left = [m.reshape([n for d, n in enumerate(m.shape) if d not in dims]) for m in marks]
    for t in call.outs:
        labelling.give(t, marks if t.dim() == x.dim() else left)


def ordering(labelling: Labelling, call: Call) -> None:
    """Sorts, ranks or sums up along a dimension: what goes changes the places of the others."""
    dim = call.argument(2 if call.operator in (aten.topk, aten.kthvalue) else 1, "dim", -1)
    if not isinstance(dim, int) or isinstance(dim, bool):  # sort.stable has its dimension by name, median may have none
        labelling.leave_whole(call)
        return
    dim %= call.x.dim()
    marks = labelling.coupling.level(labelling.of(call.x), (dim,), "it is put in an order")
    left = [m.squeeze(dim) for m in marks]
    for t in call.outs:
        labelling.give(t, marks if t.dim() == call.x.dim() else left)


def softmax(labelling: Labelling, call: Call) -> None:
    """Divides by a sum along one dimension: the labels along it are united."""
    dims = (call.args[1] % call.x.dim(),)
    labelling.give(call.out, labelling.coupling.level(labelling.of(call.x), dims, "a softmax over it"))


def glu(labelling: Labelling, call: Call) -> None:
    """Multiplies the first half by the sigmoid of the second: a channel goes with its gate."""
    dim, given = call.dim(1, call.x.dim(), default=-1), []
    for mark in labelling.of(call.x):
        if mark.shape[dim] > 1:
            value, gate = np.split(mark, 2, axis=dim)
            labelling.coupling.equal(value, gate, "its gate stays")
            mark = value
        given.append(mark)
    labelling.give(call.out, given)


def unfolding(labelling: Labelling, call: Call) -> None:
    """Lays windows out as columns, im2col: (B, C, H, W) -> (B, C x window, L)."""
    x, window = call.x, math.prod(call.args[1])
    marks = labelling.coupling.level(labelling.of(x), tuple(range(x.dim() - 2, x.dim())), PIXELS)
    labelling.give(call.out, [m.reshape(m.shape[:-1]).repeat(window if m.shape[-3] > 1 else 1, axis=-2) for m in marks])


def folding(labelling: Labelling, call: Call) -> None:
    """Adds columns up to pixels, col2im: (B, C x window, L) -> (B, C, H, W)."""
    x, window = call.x, math.prod(call.args[2])
    given = []
    for mark in labelling.coupling.level(labelling.of(x), (x.dim() - 1,), PIXELS):
        if mark.shape[-2] > 1:
            parts = mark.reshape(*mark.shape[:-2], -1, window)
            (mark,) = labelling.coupling.level((parts,), (parts.ndim - 1,), PIXELS)
        given.append(mark.reshape(*mark.shape[: x.dim() - 2], -1, 1, 1))
    labelling.give(call.out, given)


def sampling(labelling: Labelling, call: Call) -> None:
    """Takes each pixel from where a grid says (grid_sample)."""
    x, grid = call.args[:2]
    for mark in labelling.of(grid):
        if varying(mark):
            labelling.coupling.fix(mark, "it says which pixels are sampled")
    labelling.give(call.out, labelling.coupling.level(labelling.of(x), tuple(range(2, x.dim())), PIXELS))
