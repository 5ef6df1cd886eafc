"""Rules for operators that move numbers and compute nothing: views, slices, concatenations, look-ups."""

from __future__ import annotations

import numpy as np
import torch

from compress.dependency.labelling import Call, Labelling
from compress.dependency.labels import Marks, along, as_marks, move, varying

aten = torch.ops.aten
RESHAPES = (aten.view, aten._unsafe_view, aten.reshape)


def moving(labelling: Labelling, call: Call) -> None:
    """Moves numbers of one tensor: the same operator moves the labels."""
    x, marks = call.x, labelling.of(call.x)
    if not marks:
        return
    reshapes = call.operator in RESHAPES
    again = (lambda t: t.reshape(call.out.shape)) if reshapes else call.again
    moved = [move(m, tuple(x.shape), again) for m in marks]
    labelling.note_moved(x)
    pieces = [(m, a) for m, arrays in zip(marks, moved, strict=True) for a in arrays if a.size < m.size]
    labelling.record.pieces += pieces
    outs = call.outs
    labelling.moved = [tuple(arrays[i] for arrays in moved) for i in range(len(outs))]
    for tensor, given in zip(outs, labelling.moved, strict=True):
        labelling.give(tensor, given)
        labelling.note_moved(tensor)
    if reshapes:
        most = max(len(varying(m)) for m in marks)
        labelling.record.joint += [m for m in labelling.of(call.out) if len(varying(m)) > max(1, most)]


def selecting(labelling: Labelling, call: Call) -> None:
    """Takes one index of a dimension (select), or each of them (unbind): what is taken apart stays equally wide."""
    dim = call.args[1] % call.x.dim() if len(call.args) > 1 else 0
    for mark in labelling.of(call.x):
        if mark.shape[dim] > 1:
            if len(varying(mark)) == 1:
                labelling.coupling.fix(mark, "single channels of it are read")
            else:
                labelling.record.parts.append(tuple(np.moveaxis(mark, dim, 0)))
    moving(labelling, call)


def shuffling(labelling: Labelling, call: Call) -> None:
    """Transposes channels laid out as (groups, width of one): the same channel of every group goes."""
    moving(labelling, call)
    labelling.record.joint += [m.reshape(call.args[1], -1) for m in labelling.of(call.x) if varying(m) == (1,)]


def splitting(labelling: Labelling, call: Call) -> None:
    """Gives equal parts, as chunk and split do, unless the last one is smaller."""
    moving(labelling, call)
    dim = call.dim(2, call.x.dim())
    if len({part.shape[dim] for part in call.out}) == 1 and len(call.out) > 1:
        for mark in labelling.of(call.x):
            if mark.shape[dim] > 1:
                labelling.record.parts.append(tuple(np.split(mark, len(call.out), axis=dim)))


def unequal_parts(labelling: Labelling, call: Call) -> None:
    """Gives parts of which a list says the sizes: a module may hold it."""
    moving(labelling, call)
    if labelling.of(call.x):
        labelling.note_list(call.out, call.dim(2, call.x.dim()))


def padding(labelling: Labelling, call: Call) -> None:
    """Adds constant numbers around: a dimension of channels that is padded stays whole."""
    x, pad = call.args[:2]
    padded = {x.dim() - 1 - i // 2 for i, n in enumerate(pad) if n}
    marks = []
    for mark in labelling.of(x):
        if padded & set(varying(mark)):
            labelling.coupling.fix(mark, "it is padded to a fixed width")
            marks += move(mark, tuple(x.shape), lambda t: torch.constant_pad_nd(t.contiguous(), pad, 0))
        else:
            marks.append(mark)
    labelling.give(call.out, marks)


def concatenating(labelling: Labelling, call: Call) -> None:
    """Puts tensors behind each other: along that dimension labels do the same, along the others they are united."""
    rank, parts = call.out.dim(), [t for t in call.x if t.numel()]
    dim = call.dim(1, rank)
    joined = [[m for m in labelling.of(t) if m.shape[dim] > 1] for t in parts]
    for marks in joined:
        for mark in marks:
            if len(varying(mark)) > 1:
                labelling.coupling.fix(mark, "a concatenation along one of several dimensions")
    others: list[Marks] = [tuple(m for m in labelling.of(t) if m.shape[dim] == 1) for t in parts]
    shapes = [tuple(1 if d == dim else n for d, n in enumerate(t.shape)) for t in parts]
    for other, shape in zip(others[1:], shapes[1:], strict=True):
        reason = "it is concatenated with numbers that are no layer's output"
        labelling.coupling.meet(others[0], other, shapes[0], shape, reason)
    rows = []
    for row in range(max((len(m) for m in joined), default=0)):
        pieces = [
            along([marks[row]], dim)[0] if row < len(marks) else np.zeros(t.shape[dim], dtype=np.int64)
            for t, marks in zip(parts, joined, strict=True)
        ]
        rows.append(np.concatenate(pieces))
    labelling.note_list(parts, dim)
    labelling.give(call.out, [*as_marks(rows, dim, rank), *next((m for m in others if m), ())])
    labelling.note_moved(call.out)


def stacking(labelling: Labelling, call: Call) -> None:
    """Puts tensors behind each other along a new dimension: their labels are united."""
    for other in call.x[1:]:
        labelling.meet(call.x[0], other)
    dim = call.dim(1, call.out.dim())
    labelling.give(call.out, [np.expand_dims(m, dim) for m in labelling.of(call.x[0])])


def embedding(labelling: Labelling, call: Call) -> None:
    """Reads rows of a table (tokens, C): its columns are channels."""
    marks = labelling.coupling.level(labelling.of(call.x), (0,), "a table is read by tokens")
    labelling.give(call.out, as_marks(marks, call.out.dim() - 1, call.out.dim()))


def indexing(labelling: Labelling, call: Call) -> None:
    """Reads x[i, ...] by tensors of numbers that are not known here: what they choose from stays equally long."""
    x = call.x
    if call.operator is aten.index:
        chosen = tuple(d for d, index in enumerate(call.args[1]) if index is not None)
        wide = max(call.args[1][d].dim() for d in chosen)
    else:
        chosen, wide = (call.args[1] % x.dim(),), 1
    marks = labelling.coupling.level(labelling.of(x), chosen, "it is read by an index")
    if chosen != tuple(range(chosen[0], chosen[0] + len(chosen))):
        labelling.leave_whole(call)
    else:
        shapes = [m.shape[: chosen[0]] + (1,) * wide + m.shape[chosen[-1] + 1 :] for m in marks]
        labelling.give(call.out, [m.reshape(shape) for m, shape in zip(marks, shapes, strict=True)])
