"""Receptive field: the pixels (height, width) of the input that one output can depend on, padding included.

Araujo, Norris & Sim 2019, https://distill.pub/2019/computing-receptive-fields, eq. 2, followed from operator to
operator. A gate of squeeze-and-excite makes it the whole image, and so does attention, windowed or not; the statistics
of norms do not count. Which axis of a token's matrix is spatial is told by its length, so that a network with as many
channels as tokens may be misread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Pair = tuple[int, int]

WINDOWED = {aten.max_pool2d_with_indices, aten.avg_pool2d}
ADAPTIVE = {aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d}
REDUCTIONS = {aten.mean, aten.sum, aten.amax, aten.max, aten.var, aten.var_mean}
FINER = {aten.max_unpool2d, aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d}
TAPS = {aten.upsample_bilinear2d: 2, aten.upsample_bicubic2d: 4}  # input positions that one output is mixed from


@dataclass(frozen=True)
class Field:
    """What one position of a tensor sees: `size` pixels, positions `jump` pixels apart, `grid` of them; all (h, w).

    A `size` of None: everything.
    """

    size: Pair | None
    jump: tuple[float, float]
    grid: Pair

    @property
    def positions(self) -> int:
        return self.grid[0] * self.grid[1]

    def everything(self) -> Field:
        return replace(self, size=None)


def field_after(op: Any, out: Tensor, inputs: list[Tensor], args: Any, fields: Mapping[Tensor, Field]) -> Field | None:
    """What one position of an operator's output sees, from what those of its inputs see; None if none is known."""
    known = [fields[t] for t in inputs if t in fields]
    if not known:
        return None
    sizes = [f.size for f in known]
    size = None if None in sizes else (max(s[0] for s in sizes if s), max(s[1] for s in sizes if s))
    seen = replace(max(known, key=lambda f: f.positions), size=size)
    if op is aten.convolution or op in WINDOWED or op in ADAPTIVE or op in FINER:
        return _over_an_image(op, out, inputs[0], args, seen)
    if op in REDUCTIONS:
        return replace(seen, size=None, grid=(1, 1)) if _over_positions(inputs[0], args, seen) else seen
    if op in (aten.mm, aten.addmm):
        rows, summed = (args[1] if op is aten.addmm else args[0]).shape
        channels = rows * summed // seen.positions
        local = rows % seen.positions == 0 and channels % summed == 0
        return seen if local else replace(seen, size=None, grid=(1, 1))
    if op in (aten.bmm, aten.baddbmm):
        return seen.everything() if len(known) > 1 else seen
    if op is aten.cat and out.dim() == 3 and args[1:] in ((1,), (-2,)):  # a class token joins the patches
        return replace(seen, grid=(1, out.shape[1]))
    if op is aten.constant_pad_nd and out.dim() == 4:
        first = 2 if _is_image(inputs[0], seen) else 1  # (B, C, H, W) or (B, H, W, C)
        return replace(seen, grid=(out.shape[first], out.shape[first + 1]))
    return seen


def _is_image(x: Tensor, seen: Field) -> bool:
    return x.dim() == 4 and (x.shape[2], x.shape[3]) == seen.grid


def _over_an_image(op: Any, out: Tensor, x: Tensor, args: Any, seen: Field) -> Field:
    """Convolution, pooling, and what makes an image finer: r' = r + (k - 1) d j, j' = j s."""
    if not _is_image(x, seen) or out.dim() != 4:
        return seen.everything()
    grid = (out.shape[2], out.shape[3])
    if op is aten.convolution and not args[6]:
        return _window(seen, pair(args[1].shape[2:]), pair(args[3]), pair(args[5]), grid)
    if op in WINDOWED:
        stride = pair(args[2]) if len(args) > 2 and args[2] else pair(args[1])
        dilation = pair(args[4]) if op is aten.max_pool2d_with_indices and len(args) > 4 else (1, 1)
        return _window(seen, pair(args[1]), stride, dilation, grid)
    if op in ADAPTIVE and grid == (1, 1):
        return replace(seen, size=None, grid=grid)
    if op in ADAPTIVE:
        step = (max(1, x.shape[2] // grid[0]), max(1, x.shape[3] // grid[1]))
        return _window(seen, adaptive_window(x, out), step, (1, 1), grid)
    scale = (
        pair(args[3])
        if op is aten.convolution
        else tuple(max(1, round(new / old)) for new, old in zip(grid, seen.grid, strict=True))
    )
    kernel = pair(args[1].shape[2:]) if op is aten.convolution else None
    taps = [-(-k // s) for k, s in zip(kernel, scale, strict=True)] if kernel else [TAPS.get(op, 1)] * 2
    finer = _window(seen, (taps[0], taps[1]), (1, 1), (1, 1), grid)
    return replace(finer, jump=(seen.jump[0] / scale[0], seen.jump[1] / scale[1]))


def _window(seen: Field, kernel: Pair, stride: Pair, dilation: Pair, grid: Pair) -> Field:
    size = None
    if seen.size is not None:
        size_h, size_w = (
            round(r + (k - 1) * d * j) for r, k, d, j in zip(seen.size, kernel, dilation, seen.jump, strict=True)
        )
        size = (size_h, size_w)
    return Field(size, (seen.jump[0] * stride[0], seen.jump[1] * stride[1]), grid)


def _over_positions(x: Tensor, args: Any, seen: Field) -> bool:
    """Whether a reduction runs over the image, and not over the channels."""
    dims = args[1] if len(args) > 1 and args[1] is not None else range(x.dim())
    reduced = {d % x.dim() for d in ([dims] if isinstance(dims, int) else dims)}
    if x.dim() == 4:
        return bool(reduced & ({2, 3} if _is_image(x, seen) else {1, 2}))
    return 1 in reduced


def adaptive_window(x: Tensor, out: Tensor) -> Pair:
    """The largest window of an adaptive pooling of (B, C, H, W)."""
    return (-(-x.shape[2] // out.shape[2]), -(-x.shape[3] // out.shape[3]))


def pair(value: Any) -> Pair:
    """(h, w) of a list of one or two numbers."""
    return (int(value[0]), int(value[-1]))
