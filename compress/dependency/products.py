"""Rules for products: convolutions, linear layers and attention contract channels with the columns of a weight."""

from __future__ import annotations

import math

import numpy as np
import torch

from compress.dependency.labelling import PIXELS, Call, Labelling
from compress.dependency.labels import Marks, along, as_marks, only, squeezed

aten = torch.ops.aten
HEADS = ("heads", "head widths")
GROUPS = ("conv groups", "group widths")


def convolution(labelling: Labelling, call: Call) -> None:
    """Convolves (B, I, ...) with a weight (O, I / groups, ...), or (I, O / groups, ...) where it is transposed."""
    x, weight, bias, *_, transposed, _, groups = call.args[:9]
    coupling, spatial = labelling.coupling, tuple(range(2, x.dim()))
    marks = coupling.separate(coupling.level(labelling.of(x), spatial, PIXELS), (0,), HEADS)  # taken for images
    entering = tuple(m.reshape(-1) for m in marks if m.shape[1] > 1)
    depthwise = groups == x.shape[1] == len(weight)
    given = {} if transposed else only(entering, 1) if groups == 1 else only(entering) if depthwise else {}
    both = labelling.of(weight, 2, given)
    coupling.level(both, tuple(range(2, weight.dim())), "a filter's pixels")
    if transposed:
        _transposed(labelling, call, entering)
        return
    kept = [m for m in marks if m.shape[1] == 1]
    outputs, columns = along(both, 0), along(both, 1)
    if groups == 1:
        reason = "the image's own channels enter there" if not entering else "it meets columns that stay"
        coupling.meet(entering, columns, (x.shape[1],), (weight.shape[1],), reason)
    else:
        _grouped(labelling, call, entering, outputs, columns)
    if bias is not None:
        shifts = labelling.of(bias, given=only(outputs))
        coupling.meet(outputs, shifts, (len(weight),), (len(weight),), "its bias")
    out = call.out
    labelling.give(out, [*as_marks(outputs, 1, out.dim()), *kept])
    constant = math.prod(out.shape[2:]) * math.prod(weight.shape[2:])
    labelling.note_product(constant, (len(out), along(kept, 0)), (len(weight), outputs), (weight.shape[1], columns))


def _transposed(labelling: Labelling, call: Call, entering: Marks) -> None:
    """A transposed convolution: its weight is (I, O / groups, ...)."""
    x, weight, bias, groups = *call.args[:3], call.args[8]
    rows, columns = along(labelling.of(weight, 2), 0), along(labelling.of(weight, 2), 1)
    labelling.coupling.meet(entering, rows, (x.shape[1],), (len(weight),), "it meets rows that stay")
    outputs = columns if groups == 1 else _transposed_groups(labelling, entering, columns, weight.shape[1], groups)
    if bias is not None:
        labelling.coupling.meet(outputs, labelling.of(bias), (len(bias),), (len(bias),), "its bias")
    labelling.give(call.out, as_marks(outputs, 1, call.out.dim()))
    constant = x.numel() // x.shape[1] * math.prod(weight.shape[2:])
    labelling.note_product(constant, (len(weight), rows), (weight.shape[1], columns))


def _transposed_groups(labelling: Labelling, entering: Marks, columns: Marks, width: int, groups: int) -> Marks:
    """What leaves is groups times columns: a group goes with its inputs, a column of the weight in all groups."""
    if not entering:
        for mark in columns:
            labelling.coupling.fix(mark, "a grouped convolution reads it")
        return tuple(np.tile(m, groups) for m in columns)
    blocks = tuple(squeezed(m.reshape(groups, -1)) for m in entering)
    each = [m for m in labelling.coupling.separate(blocks, (0,), GROUPS) if m.shape[0] > 1]
    labelling.note_groups(groups, each)
    return (*(np.repeat(m.reshape(-1), width) for m in each), *(np.tile(m, groups) for m in columns))


def _grouped(labelling: Labelling, call: Call, entering: Marks, outputs: Marks, columns: Marks) -> None:
    """Channels are groups times channels inside: whole groups go, or the same channel of every group."""
    coupling, reason = labelling.coupling, "a grouped convolution reads it"
    if not entering:
        for mark in (*outputs, *columns):
            coupling.fix(mark, reason)
        return
    inputs, width, groups = call.x.shape[1], len(call.args[1]), call.args[8]
    inside, outside = inputs // groups, width // groups
    if inside == 1:  # depthwise: an output goes with its input
        repeated = tuple(np.repeat(m, outside) for m in entering)
        coupling.meet(repeated, outputs, (width,), (width,), reason)
        labelling.note_groups(inputs, entering)
        return
    blocks = tuple(squeezed(m.reshape(groups, inside)) for m in entering)
    separate = coupling.separate(blocks, (0,), GROUPS)
    each = [m for m in separate if m.shape[0] > 1]
    within = tuple(m.reshape(-1) for m in separate if m.shape[1] > 1)
    coupling.meet(within, columns, (inside,), (inside,), reason)
    for mark in outputs:
        leaving = coupling.separate((squeezed(mark.reshape(groups, outside)),), (0,), GROUPS)
        coupling.meet(tuple(each), tuple(m for m in leaving if m.shape[0] > 1), (groups, 1), (groups, 1), reason)
    labelling.note_groups(groups, each)


def matrix(labelling: Labelling, call: Call) -> None:
    """Multiplies (M, K) by (K, N), or (B, M, K) by (B, K, N) with B the heads of attention; a bias may come first."""
    biased = call.operator in (aten.addmm, aten.baddbmm)
    a, b = call.args[biased : biased + 2]
    coupling, rank, left, right = labelling.coupling, a.dim(), labelling.of(a), labelling.of(b)
    heads: Marks = ()
    if rank == 3:
        left, right = coupling.separate(left, (0,), HEADS), coupling.separate(right, (0,), HEADS)
    left = coupling.separate(left, (rank - 2,), ("rows", "channels"))
    right = coupling.separate(right, (rank - 2,), ("channels", "columns"))
    if rank == 3:
        heads, others = along(left, 0), along(right, 0)
        coupling.meet(heads, others, (len(a),), (len(a),), "its heads meet numbers that are no layer's output")
        heads = heads or others
    inner, other = along(left, rank - 1), along(right, rank - 2)
    reason = "it meets columns that stay" if inner or rank == 3 else "the input's own numbers enter there"
    coupling.meet(inner, other, (a.shape[-1],), (b.shape[-2],), reason)
    rows, columns = along(left, rank - 2), along(right, rank - 1)
    given = [*as_marks(heads, 0, rank), *as_marks(rows, rank - 2, rank), *as_marks(columns, rank - 1, rank)]
    labelling.give(call.out, given)
    if biased:
        labelling.meet(call.out, call.x)
    of_heads = [(len(a), heads)] if rank == 3 else []
    labelling.note_product(1, *of_heads, (a.shape[-2], rows), (a.shape[-1], inner), (b.shape[-1], columns))
