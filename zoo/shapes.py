"""Shapes of the commonest operators on tensors without contents ("meta").

torch computes them too, for some in Python by decomposing the operator: a BatchNorm or ReLU6 takes milliseconds then,
more than on real numbers, and a pass on shapes alone is made of little else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
ELEMENTWISE = {  # operators of one tensor, whose output has its shape and type
    aten.relu,
    aten.hardtanh,
    aten.hardswish,
    aten.hardsigmoid,
    aten.silu,
    aten.gelu,
    aten.sigmoid,
    aten.tanh,
    aten.leaky_relu,
    aten.elu,
    aten.mish,
}
IN_PLACE = {aten.relu_, aten.hardtanh_, aten.hardswish_, aten.hardsigmoid_, aten.silu_, aten.sigmoid_, aten.leaky_relu_}
OF_TWO = {aten.add, aten.add_, aten.mul}  # of two tensors, whose output is like both where they are alike
NORMS = {aten._native_batch_norm_legit_no_training, aten.native_batch_norm}


def run_on_shapes(func: Any, args: Any, kwargs: Any) -> Any:
    """What an ATen operator gives, from shapes alone where its first argument has no contents."""
    op, x = func.overloadpacket, args[0] if args else None
    if not isinstance(x, Tensor) or not x.is_meta:
        return func(*args, **kwargs)
    if op in IN_PLACE:
        return x
    if op in ELEMENTWISE and x.is_floating_point():
        return _like(x)
    if op in OF_TWO and isinstance(args[1], Tensor) and _alike(x, args[1]):
        return x if op is aten.add_ else _like(x)
    if op in NORMS and not (op is aten.native_batch_norm and args[5]):  # which is whether it trains
        saved = _shaped(x, (0,))
        return _like(x), saved, saved
    if op is aten.convolution and not args[6] and x.dim() == args[1].dim():  # which is whether it is transposed
        return _shaped(x, _convolved(x, args[1], args[2], args[3], args[4], args[5], args[8]))
    return func(*args, **kwargs)


def _alike(a: Tensor, b: Tensor) -> bool:
    return b.is_meta and a.shape == b.shape and a.dtype == b.dtype and a.is_contiguous() and b.is_contiguous()


def _like(x: Tensor) -> Tensor:
    return _shaped(x, x.shape) if x.is_contiguous() else torch.empty_like(x)  # the latter is Python's again


def _shaped(x: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device="meta")  # x.new_empty is Python's too


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> list[int]:
    """(B, C, ...) * (O, C / groups, ...) -> (B, O, ...).

    Raises:
        RuntimeError: the channels do not fit, or the image is smaller than the filter.
    """
    batch, channels, *image = x.shape
    filters, each, *window = weight.shape
    if channels != each * groups or filters % groups:
        raise RuntimeError(f"{channels} channels meet a weight of {tuple(weight.shape)} in {groups} groups")
    if bias is not None and len(bias) != filters:
        raise RuntimeError(f"a bias of {len(bias)} meets {filters} filters")
    steps, pads, holes = (n * len(image) if len(n) == 1 else n for n in (list(stride), list(padding), list(dilation)))
    sizes = [
        (n + 2 * pad - hole * (k - 1) - 1) // step + 1
        for n, k, step, pad, hole in zip(image, window, steps, pads, holes, strict=True)
    ]
    if min(sizes, default=1) < 1:
        raise RuntimeError(f"an image of {tuple(image)} is smaller than a filter of {tuple(window)}")
    return [batch, filters, *sizes]
