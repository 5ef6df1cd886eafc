"""Rules for products: convolutions, linear layers and attention contract channels with the columns of a weight."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.dependency.labelling import Labelling
from compress.dependency.labels import Marks, along, only, squeezed

aten = torch.ops.aten
HEADS = ("heads", "head widths")
GROUPS = ("conv groups", "group widths")


def convolution(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, weight, bias, *_, transposed, _, groups = args[:9]
    coupling, spatial = labelling.coupling, tuple(range(2, x.dim()))
    level = coupling.level(labelling.of(x), spatial, "its pixels are channels of another layer")
    marks = tuple(coupling.separate(level, (0,), HEADS))  # heads may be taken for images
    entering = tuple(m.reshape(-1) for m in marks if m.shape[1] > 1)
    depthwise = groups == x.shape[1] == len(weight)
    given = {} if transposed else only(entering, 1) if groups == 1 else only(entering) if depthwise else {}
    rows = labelling.of(weight, 2, given)
    coupling.level(rows, tuple(range(2, weight.dim())), "a filter's pixels")
    if transposed:
        _transposed(labelling, out, x, marks, weight, bias, groups)
        return
    kept = [m for m in marks if m.shape[1] == 1]
    outputs, columns = along(rows, 0), along(rows, 1)
    if groups == 1:
        reason = "the image's own channels enter there" if not entering else "it meets columns that stay"
        coupling.meet(entering, columns, (x.shape[1],), (weight.shape[1],), reason)
    else:
        _grouped(labelling, entering, outputs, columns, x.shape[1], len(weight), groups)
    if bias is not None:
        shifts = labelling.of(bias, given=only(outputs))
        coupling.meet(outputs, shifts, (len(weight),), (len(weight),), "its bias")
    result = tuple(m.reshape([-1 if d == 1 else 1 for d in range(out.dim())]) for m in outputs)
    labelling.give(out, [*result, *kept])
    constant = math.prod(out.shape[2:]) * math.prod(weight.shape[2:])
    labelling.note_product(constant, (len(out), along(kept, 0)), (len(weight), outputs), (weight.shape[1], columns))


def _transposed(
    labelling: Labelling, out: Tensor, x: Tensor, marks: Marks, weight: Tensor, bias: Any, groups: int
) -> None:
    """A transposed convolution's weight is (I, O / groups, ...)."""
    rows, columns = along(labelling.of(weight, 2), 0), along(labelling.of(weight, 2), 1)
    entering = tuple(m.reshape(-1) for m in marks if m.shape[1] > 1)
    labelling.coupling.meet(entering, rows, (x.shape[1],), (len(weight),), "it meets rows that stay")
    outputs = columns if groups == 1 else _transposed_groups(labelling, entering, columns, weight.shape[1], groups)
    if bias is not None:
        labelling.coupling.meet(outputs, labelling.of(bias), (len(bias),), (len(bias),), "its bias")
    labelling.give(out, [m.reshape([-1 if d == 1 else 1 for d in range(out.dim())]) for m in outputs])
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
    if each:
        labelling.record.groups[labelling.module] = (groups, tuple(m.reshape(-1) for m in each))
    return (*(np.repeat(m.reshape(-1), width) for m in each), *(np.tile(m, groups) for m in columns))


def _grouped(
    labelling: Labelling, entering: Marks, outputs: Marks, columns: Marks, inputs: int, width: int, groups: int
) -> None:
    """Channels are groups times channels inside: whole groups go, or the same channel of every group."""
    coupling, reason = labelling.coupling, "a grouped convolution reads it"
    if not entering:
        for mark in (*outputs, *columns):
            coupling.fix(mark, reason)
        return
    inside, outside = inputs // groups, width // groups
    if inside == 1:  # depthwise: an output goes with its input
        repeated = tuple(np.repeat(m, outside) for m in entering)
        coupling.meet(repeated, outputs, (width,), (width,), reason)
        labelling.record.groups[labelling.module] = (inputs, entering)
        return
    blocks = tuple(squeezed(m.reshape(groups, inside)) for m in entering)
    separate = coupling.separate(blocks, (0,), GROUPS)
    each = [m for m in separate if m.shape[0] > 1]
    within = tuple(m.reshape(-1) for m in separate if m.shape[1] > 1)
    coupling.meet(within, columns, (inside,), (inside,), reason)
    for mark in outputs:
        leaving = coupling.separate((squeezed(mark.reshape(groups, outside)),), (0,), GROUPS)
        coupling.meet(tuple(each), tuple(m for m in leaving if m.shape[0] > 1), (groups, 1), (groups, 1), reason)
    if each:
        labelling.record.groups[labelling.module] = (groups, tuple(m.reshape(-1) for m in each))


def matrix(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """(M, K) times (K, N), and a bias (N) or (M, N) before them in addmm."""
    bias, a, b = args[:3] if func.overloadpacket is aten.addmm else (None, *args[:2])
    left = labelling.coupling.separate(labelling.of(a), (0,), ("rows", "channels"))
    right = labelling.coupling.separate(labelling.of(b), (0,), ("channels", "columns"))
    inner, other = along(left, 1), along(right, 0)
    reason = "the input's own numbers enter there" if not inner else "it meets columns that stay"
    labelling.coupling.meet(inner, other, (a.shape[1],), (b.shape[0],), reason)
    rows, columns = along(left, 0), along(right, 1)
    labelling.give(out, [*(m.reshape(-1, 1) for m in rows), *(m.reshape(1, -1) for m in columns)])
    if bias is not None:
        labelling.meet(out, bias)
    labelling.note_product(1, (a.shape[0], rows), (a.shape[1], inner), (b.shape[1], columns))


def batched(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """(B, M, K) times (B, K, N): attention's products, B its heads."""
    bias, a, b = args[:3] if func.overloadpacket is aten.baddbmm else (None, *args[:2])
    coupling = labelling.coupling
    left, right = coupling.separate(labelling.of(a), (0,), HEADS), coupling.separate(labelling.of(b), (0,), HEADS)
    left = coupling.separate(tuple(left), (1,), ("rows", "channels"))
    right = coupling.separate(tuple(right), (1,), ("channels", "columns"))
    size, reason = a.shape[0], "it meets columns that stay"
    heads, others = along(left, 0), along(right, 0)
    coupling.meet(heads, others, (size,), (size,), "its heads meet numbers that are no layer's output")
    inner, other = along(left, 2), along(right, 1)
    coupling.meet(inner, other, (a.shape[2],), (b.shape[1],), reason)
    rows, columns = along(left, 1), along(right, 2)
    heads = heads or others
    marks = [m.reshape(-1, 1, 1) for m in heads] + [m.reshape(1, -1, 1) for m in rows]
    labelling.give(out, marks + [m.reshape(1, 1, -1) for m in columns])
    if bias is not None:
        labelling.meet(out, bias)
    labelling.note_product(1, (size, heads), (a.shape[1], rows), (a.shape[2], inner), (b.shape[2], columns))
