"""Rules: what each ATen operator does to channels' labels. A new operator is one more line in `RULES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.dependency.labelling import Labelling
from compress.dependency.labels import Array, Marks, aligned, along, move, varying
from compress.dependency.layouts import folding, glu, sampling, unfolding
from compress.dependency.norms import batch_norm, group_norm, layer_norm
from compress.dependency.products import batched, convolution, matrix

aten = torch.ops.aten
Rule = Callable[[Labelling, Any, Any, Any, Any], None]


def rule_of(func: Any) -> Rule:
    rule = RULES.get(func.overloadpacket)
    if rule is None:
        rule = elementwise if torch.Tag.pointwise in func.tags else unknown
    return rule


def elementwise(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Labels of elements that meet are united."""
    inputs = [a for a in args if isinstance(a, Tensor)] + [a for a in kwargs.values() if isinstance(a, Tensor)]
    labelled = [t for t in inputs if labelling.of(t)]
    if not labelled:
        return
    if func.overloadpacket in SCALINGS:
        numbers = [a for a in args[1:] if isinstance(a, int | float)]
        numbers += [float(a) for a in args[1:] if isinstance(a, Tensor) and a.dim() == 0 and a.device.type == "cpu"]
        if numbers:
            labelling.note_scaled(numbers[0], labelling.of(labelled[0]))
    first = labelled[0]
    for other in inputs:
        if other is not first and other.dim():
            labelling.meet(first, other)
    marks = list(aligned(labelling.of(first), out.dim()))
    broadcast = {d for d, n in enumerate((1,) * (out.dim() - first.dim()) + tuple(first.shape)) if n == 1}
    for other in labelled[1:]:
        marks += [m for m in aligned(labelling.of(other), out.dim()) if set(varying(m)) <= broadcast]
    labelling.give(out, marks)


def unknown(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """What enters an operator without a rule stays whole; the module that uses it is told."""
    for t in torch.utils._pytree.tree_leaves((args, kwargs)):
        if isinstance(t, Tensor):
            for mark in labelling.of(t):
                labelling.coupling.fix(mark, f"{labelling.described} uses {func.overloadpacket}, which has no rule")


def nothing(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Makes new numbers of a tensor's shape, or reads its shape."""


def same(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    labelling.give(out, labelling.of(args[0]))


def strided(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Other strides: the same tensor if its shape is, and nothing is known of it otherwise."""
    x = args[0]
    if tuple(out.shape) == tuple(args[1]) == tuple(x.shape) and x.is_contiguous():
        same(labelling, func, out, args, kwargs)
    else:
        unknown(labelling, func, out, args, kwargs)


def moving(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Moves numbers: the same operator moves the labels."""
    x, marks = args[0], labelling.of(args[0])
    if not marks:
        return
    outs = list(out) if isinstance(out, tuple | list) else [out]
    if func.overloadpacket in RESHAPES:
        new = tuple(out.shape)
        moved = [move(m, tuple(x.shape), lambda t: t.reshape(new)) for m in marks]
    else:
        moved = [move(m, tuple(x.shape), lambda t: func(t, *args[1:], **kwargs)) for m in marks]
    labelling.note_moved(x)
    labelling.record.pieces += [
        (m, a) for m, arrays in zip(marks, moved, strict=True) for a in arrays if a.size < m.size
    ]
    labelling.moved = [tuple(arrays[i] for arrays in moved) for i in range(len(outs))]
    for tensor, given in zip(outs, labelling.moved, strict=True):
        labelling.give(tensor, given)
        labelling.note_moved(tensor)
    if func.overloadpacket in RESHAPES:
        labelling.record.joint += [m for m in labelling.of(out) if len(varying(m)) > 1 and _splits(m, marks)]


def _splits(mark: Array, before: Marks) -> bool:
    return max(len(varying(m)) for m in before) < len(varying(mark))


def selecting(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """One index of a dimension (select), or each of them (unbind): what it takes apart stays equally wide."""
    x, dim = args[0], args[1] if len(args) > 1 else 0
    dim %= x.dim()
    for mark in labelling.of(x):
        if mark.shape[dim] > 1:
            if len(varying(mark)) == 1:
                labelling.coupling.fix(mark, "single channels of it are read")
            else:
                labelling.record.parts.append(tuple(np.moveaxis(mark, dim, 0)))
    moving(labelling, func, out, args, kwargs)


def shuffling(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Channels as (groups, width of one), transposed: the same channel of every group goes."""
    moving(labelling, func, out, args, kwargs)
    labelling.record.joint += [m.reshape(args[1], -1) for m in labelling.of(args[0]) if varying(m) == (1,)]


def splitting(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Equal parts (chunk, split)."""
    x, dim = args[0], args[2] if len(args) > 2 else kwargs.get("dim", 0)
    dim %= x.dim()
    moving(labelling, func, out, args, kwargs)
    if len({part.shape[dim] for part in out}) == 1 and len(out) > 1:
        for mark in labelling.of(x):
            if mark.shape[dim] > 1:
                labelling.record.parts.append(tuple(np.split(mark, len(out), axis=dim)))


def unequal_parts(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    moving(labelling, func, out, args, kwargs)
    if labelling.of(args[0]):
        dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        labelling.note_list(out, dim % args[0].dim())


def padding(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, pad = args[0], args[1]
    padded = {x.dim() - 1 - i // 2 for i, n in enumerate(pad) if n}
    marks = []
    for mark in labelling.of(x):
        if padded & set(varying(mark)):
            labelling.coupling.fix(mark, "it is padded to a fixed width")
            marks += move(mark, tuple(x.shape), lambda t: torch.constant_pad_nd(t.contiguous(), pad, 0))
        else:
            marks.append(mark)
    labelling.give(out, marks)


def concatenating(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Labels stand behind each other along the dimension, and along the others are united."""
    parts = [t for t in args[0] if t.numel()]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    resolved = [[m for m in labelling.of(t) if m.shape[dim] > 1] for t in parts]
    for marks in resolved:
        for mark in marks:
            if len(varying(mark)) > 1:
                labelling.coupling.fix(mark, "a concatenation along one of several dimensions")
    others: list[Marks] = [tuple(m for m in labelling.of(t) if m.shape[dim] == 1) for t in parts]
    shapes = [tuple(1 if d == dim else n for d, n in enumerate(t.shape)) for t in parts]
    for other, shape in zip(others[1:], shapes[1:], strict=True):
        reason = "it is concatenated with numbers that are no layer's output"
        labelling.coupling.meet(others[0], other, shapes[0], shape, reason)
    rows = []
    for row in range(max((len(m) for m in resolved), default=0)):
        pieces = [
            along([marks[row]], dim)[0] if row < len(marks) else np.zeros(t.shape[dim], dtype=np.int64)
            for t, marks in zip(parts, resolved, strict=True)
        ]
        rows.append(np.concatenate(pieces).reshape([-1 if d == dim else 1 for d in range(out.dim())]))
    labelling.note_list(parts, dim)
    labelling.give(out, [*rows, *next((m for m in others if m), ())])
    labelling.note_moved(out)


def stacking(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    parts, dim = args[0], (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    for other in parts[1:]:
        labelling.meet(parts[0], other)
    labelling.give(out, [np.expand_dims(m, dim) for m in labelling.of(parts[0])])


def windows(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Pooling and resizing: pixels of a channel are joined."""
    outs = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
    x = args[0]
    spatial = tuple(range(max(1, x.dim() - _WINDOW.get(func.overloadpacket, 2)), x.dim()))
    marks = labelling.coupling.level(labelling.of(x), spatial, "its pixels are channels of another layer")
    for t in outs:
        labelling.give(t, marks)


def unpooling(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    labelling.meet(args[0], args[1])
    labelling.give(out, labelling.of(args[0]))


def reducing(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Sums, means, maxima: along their dimensions labels are united."""
    x = args[0]
    if len(args) > 1 and isinstance(args[1], Tensor):  # the larger of two
        elementwise(labelling, func, out, args, kwargs)
        return
    position = 2 if func.overloadpacket in (aten.linalg_vector_norm, aten.norm) else 1
    given = args[position] if len(args) > position else kwargs.get("dim")
    dims = range(x.dim()) if given is None or given == [] else [given] if isinstance(given, int) else given
    dims = tuple(d % x.dim() for d in dims) if x.dim() else ()
    marks = labelling.coupling.level(labelling.of(x), dims, "it is summed or averaged over")
    for t in out if isinstance(out, tuple | list) else (out,):
        if t.dim() == x.dim():
            labelling.give(t, marks)
        else:
            labelling.give(t, [m.reshape([n for d, n in enumerate(m.shape) if d not in dims]) for m in marks])


def ordering(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """Sorts, running sums and ranks along a dimension: what goes changes the places of the others."""
    x, position = args[0], 2 if func.overloadpacket in (aten.topk, aten.kthvalue) else 1
    dim = args[position] if len(args) > position else kwargs.get("dim", -1)
    if not isinstance(dim, int) or isinstance(dim, bool):  # sort.stable has its dimension by name, median may have none
        unknown(labelling, func, out, args, kwargs)
        return
    dim %= x.dim()
    marks = labelling.coupling.level(labelling.of(x), (dim,), "it is put in an order")
    for t in out if isinstance(out, tuple | list) else (out,):
        labelling.give(t, marks if t.dim() == x.dim() else [np.squeeze(m, dim) for m in marks])


def first_of(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """An elementwise operator of its first argument, which also gives out what its gradient needs."""
    labelling.give(out[0] if isinstance(out, tuple | list) else out, labelling.of(args[0]))


def softmax(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x = args[0]
    labelling.give(out, labelling.coupling.level(labelling.of(x), (args[1] % x.dim(),), "a softmax over it"))


def embedding(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    marks = labelling.coupling.level(labelling.of(args[0]), (0,), "a table is read by tokens")
    labelling.give(out, [m.reshape([1] * (out.dim() - 1) + [-1]) for m in marks if m.size > 1])


def indexing(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """x[i, ...] by tensors of numbers that are not known here: what they choose from stays equally long."""
    x = args[0]
    if func.overloadpacket is aten.index:
        indices = list(args[1]) + [None] * (x.dim() - len(args[1]))
        chosen = tuple(d for d, index in enumerate(indices) if index is not None)
        wide = max(indices[d].dim() for d in chosen)
    else:
        chosen, wide = (args[1] % x.dim(),), 1
    marks = labelling.coupling.level(labelling.of(x), chosen, "it is read by an index")
    if chosen != tuple(range(chosen[0], chosen[0] + len(chosen))):
        unknown(labelling, func, out, args, kwargs)
        return
    labelling.give(out, [m.reshape(m.shape[: chosen[0]] + (1,) * wide + m.shape[chosen[-1] + 1 :]) for m in marks])


RESHAPES = (aten.view, aten._unsafe_view, aten.reshape)
COPIES = (aten.clone, aten.contiguous, aten.alias, aten.detach, aten._to_copy, aten.lift_fresh)
SCALINGS = (aten.mul, aten.mul_, aten.div, aten.div_)
_WINDOW = {  # pooling, resizing and padding along one dimension, or three
    **dict.fromkeys(
        (
            aten.avg_pool1d, aten.max_pool1d, aten.upsample_linear1d, aten.upsample_nearest1d,
            aten._upsample_nearest_exact1d, aten.reflection_pad1d, aten.replication_pad1d,
        ),
        1,
    ),
    **dict.fromkeys(
        (
            aten.avg_pool3d, aten.max_pool3d_with_indices, aten._adaptive_avg_pool3d, aten.adaptive_max_pool3d,
            aten.upsample_trilinear3d, aten.upsample_nearest3d, aten._upsample_nearest_exact3d,
            aten.reflection_pad3d, aten.replication_pad3d,
        ),
        3,
    ),
}  # fmt: skip
RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        (
            *RESHAPES, aten.permute, aten.transpose, aten.t, aten.expand, aten.unsqueeze, aten.squeeze, aten.slice,
            aten.roll, aten.flip, aten.repeat, aten.unfold, aten.pixel_shuffle,
            aten.pixel_unshuffle, aten.narrow, aten.movedim,
        ),
        moving,
    ),
    **dict.fromkeys((aten.select, aten.unbind), selecting),
    **dict.fromkeys((aten.split, aten.chunk), splitting),
    **dict.fromkeys((aten.channel_shuffle, aten.native_channel_shuffle), shuffling),
    aten.split_with_sizes: unequal_parts,
    **dict.fromkeys((*COPIES, aten.hardswish, aten.hardswish_, aten.hardsigmoid, aten.hardsigmoid_), same),
    **dict.fromkeys(
        (
            aten.empty_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones,
            aten.new_full, aten.new_empty, aten.rand_like, aten.randn_like, aten.zero_, aten.fill_, aten.empty,
        ),
        nothing,
    ),
    **dict.fromkeys(
        (
            aten.max_pool2d_with_indices, aten.avg_pool2d, aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d,
            aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten.avg_pool1d,
            aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa, aten.reflection_pad2d, aten.replication_pad2d,
            aten.adaptive_avg_pool2d, aten._upsample_nearest_exact2d, *_WINDOW,
        ),
        windows,
    ),
    **dict.fromkeys(
        (
            aten.mean, aten.sum, aten.amax, aten.amin, aten.max, aten.min, aten.var, aten.std, aten.var_mean,
            aten.linalg_vector_norm, aten.norm, aten.argmax, aten.prod, aten.any, aten.all, aten.logsumexp,
        ),
        reducing,
    ),
    **dict.fromkeys((aten._softmax, aten._safe_softmax, aten._log_softmax), softmax),
    **dict.fromkeys(
        (
            aten.sort, aten.argsort, aten.topk, aten.kthvalue, aten.median, aten.mode, aten.cumsum, aten.cumprod,
            aten.cummax, aten.cummin, aten.logcumsumexp,
        ),
        ordering,
    ),
    **dict.fromkeys((aten.log_sigmoid_forward, aten.rrelu_with_noise), first_of),
    **dict.fromkeys((aten.mm, aten.addmm), matrix),
    **dict.fromkeys((aten.bmm, aten.baddbmm), batched),
    **dict.fromkeys(
        (
            aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm,
            aten.batch_norm, aten._batch_norm_no_update, aten._native_batch_norm_legit,
        ),
        batch_norm,
    ),
    **dict.fromkeys((aten.index, aten.index_select), indexing),
    aten.convolution: convolution,
    **dict.fromkeys((aten.copy_, aten._prelu_kernel), elementwise),
    aten.as_strided_: strided,
    aten.cat: concatenating,
    aten.stack: stacking,
    aten.constant_pad_nd: padding,
    aten.max_unpool2d: unpooling,
    aten.glu: glu,
    aten.im2col: unfolding,
    aten.col2im: folding,
    **dict.fromkeys((aten.grid_sampler_2d, aten.grid_sampler_3d), sampling),
    aten.native_layer_norm: layer_norm,
    aten.native_group_norm: group_norm,
    aten.embedding: embedding,
}  # fmt: skip
MOVING = {  # operators that only move numbers; which of the reshapes runs depends on how a tensor lies in memory
    op: "reshape" if op in RESHAPES else str(op)
    for op, rule in RULES.items()
    if rule in (moving, selecting, shuffling, splitting, unequal_parts)
}
