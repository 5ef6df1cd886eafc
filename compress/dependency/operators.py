"""The table of rules: what each ATen operator does to the labels of channels.

To add a rule for an operator of torch.ops.aten that has none (the reason is "... uses aten.NAME, which has no rule"):

1. Look for a rule that fits: `moving` for an operator that only moves the numbers of one tensor, `windows` for pooling,
   `same` for one that keeps every number at its place. Elementwise operators need no entry: torch tags them.
2. Where none fits, write one, a function (labelling, call) -> None, in the file of its like: moving, joining, norms or
   products. `labelling.of(tensor)` are the marks of what enters. Unite labels that can only go together, with
   `labelling.meet` or `labelling.coupling.level`, and keep those that cannot go, with `labelling.coupling.fix`. Then
   say with `labelling.give(call.out, marks)` what the output carries; channels without labels are never cut.
3. Write the operator's name behind its rule in `_NAMES` (tests/compress/dependency/test_operators.py shows that this
   is all it takes).
4. Put a network with it into CUT of tests/compress/dependency/test_pruned_layers.py: its cut has to be its mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from compress.dependency import joining, moving, norms, products
from compress.dependency.labelling import Call, Labelling

aten = torch.ops.aten
Rule = Callable[[Labelling, Call], None]


def rule_of(func: Any) -> Rule:
    """The rule for an overload of an operator, such as aten.add.Tensor."""
    if rule := RULES.get(func.overloadpacket):
        return rule
    return joining.elementwise if torch.Tag.pointwise in func.tags else Labelling.leave_whole


def nothing(labelling: Labelling, call: Call) -> None:
    """Makes new numbers of a tensor's shape, or reads its shape."""


def same(labelling: Labelling, call: Call) -> None:
    """Computes each number from the one at its place in the first argument; more outputs are for a gradient."""
    labelling.give(call.outs[0], labelling.of(call.x))


def strided(labelling: Labelling, call: Call) -> None:
    """Gives other strides: the same tensor if its shape is the same; nothing is known of it otherwise."""
    unchanged = tuple(call.out.shape) == tuple(call.args[1]) == tuple(call.x.shape) and call.x.is_contiguous()
    (same if unchanged else Labelling.leave_whole)(labelling, call)


_COPIES = "clone contiguous alias detach _to_copy lift_fresh"
_NAMES: dict[Rule, str] = {
    moving.moving: """
        view _unsafe_view reshape permute transpose t expand unsqueeze squeeze slice roll flip repeat unfold
        pixel_shuffle pixel_unshuffle narrow movedim
        """,
    moving.selecting: "select unbind",
    moving.splitting: "split chunk",
    moving.unequal_parts: "split_with_sizes",
    moving.shuffling: "channel_shuffle native_channel_shuffle",
    moving.concatenating: "cat",
    moving.stacking: "stack",
    moving.padding: "constant_pad_nd",
    moving.indexing: "index index_select",
    moving.embedding: "embedding",
    same: _COPIES + " hardswish hardswish_ hardsigmoid hardsigmoid_ log_sigmoid_forward rrelu_with_noise",
    strided: "as_strided_",
    nothing: """
        empty_like zeros_like ones_like full_like rand_like randn_like new_zeros new_ones new_full new_empty
        zero_ fill_ empty
        """,
    joining.elementwise: "copy_ _prelu_kernel",
    joining.windows: """
        avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d_with_indices max_pool3d_with_indices
        adaptive_avg_pool2d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
        upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
        upsample_trilinear3d upsample_nearest1d upsample_nearest2d upsample_nearest3d
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
        """,
    joining.unpooling: "max_unpool2d",
    joining.reducing: """
        mean sum amax amin max min var std var_mean linalg_vector_norm norm argmax prod any all logsumexp
        """,
    joining.ordering: "sort argsort topk kthvalue median mode cumsum cumprod cummax cummin logcumsumexp",
    joining.softmax: "_softmax _safe_softmax _log_softmax",
    joining.glu: "glu",
    joining.unfolding: "im2col",
    joining.folding: "col2im",
    joining.sampling: "grid_sampler_2d grid_sampler_3d",
    products.matrix: "mm addmm bmm baddbmm",
    products.convolution: "convolution",
    norms.batch_norm: """
        native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
        batch_norm _batch_norm_no_update cudnn_batch_norm
        """,
    norms.layer_norm: "native_layer_norm",
    norms.group_norm: "native_group_norm",
}
COPIES = [getattr(aten, name) for name in _COPIES.split()]
RULES: dict[Any, Rule] = {getattr(aten, name): rule for rule, names in _NAMES.items() for name in names.split()}
_MOVE = (moving.moving, moving.selecting, moving.shuffling, moving.splitting, moving.unequal_parts)
MOVING = {  # operators that only move numbers; which of the reshapes runs depends on how a tensor lies in memory
    op: "reshape" if op in moving.RESHAPES else str(op) for op, rule in RULES.items() if rule in _MOVE
}
