"""Operators of a training step that a CPU computes faster in another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

FEW_PIXELS = 144  # 12 x 12: above, oneDNN is as fast or faster
FEW_CHANNELS = 16
COPIED = (F.hardtanh, F.relu6, F.hardswish, F.silu, F.mish)  # in place, their gradients need what is overwritten


class CpuOperators(TorchFunctionMode):
    """Within it, four kinds of operators are computed in other ways: same sums, less time.

    oneDNN has no fast gradient of the weights for a kernel that does not fit into the map without its padding, and
    falls back to a reference one. EfficientNet-Lite0's last stage has 3 x 3 maps at 96 px under kernels of 5 x 5: three
    such layers took a quarter of a training step (benchmarks/bench_loader.py). Padded by hand, the kernel fits.

    A 1 x 1 convolution is a matrix product over the channels, and of few pixels BLAS makes it faster, above all the
    gradient of the weights.

    A 1 x 1 convolution with a stride reads every second or n-th pixel, which are taken first where channels are few:
    the gradient of its weights, channels last, crashes in oneDNN (torch 2.14, fewer than 16 channels of 112 x 112 and
    more: MobileOne's and FastViT's first layer).

    An activation in place whose gradient needs its input is a copy and a second pass over it; out of place it is one.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            return _conv2d(*args, **kwargs)
        if func in COPIED and kwargs.get("inplace") and args[0].device.type == "cpu" and torch.is_grad_enabled():
            kwargs = {**kwargs, "inplace": False}
        return func(*args, **kwargs)


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    down, across = (stride, stride) if isinstance(stride, int) else (stride[0], stride[-1])
    if input.device.type == "cpu" and input.ndim == 4 and _is_pointwise(weight, padding, groups):
        if (down, across) == (1, 1):
            if _has_few_pixels(input):
                return F.linear(input.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
        elif input.shape[1] < FEW_CHANNELS:
            return torch.conv2d(input[:, :, ::down, ::across], weight, bias)
    fits = all(side >= kernel for side, kernel in zip(input.shape[-2:], weight.shape[-2:], strict=True))
    if fits or isinstance(padding, str) or input.device.type != "cpu":
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    padded = F.pad(input, (columns, columns, rows, rows)).contiguous(memory_format=torch.channels_last)
    return torch.conv2d(padded, weight, bias, stride, 0, dilation, groups)


def _is_pointwise(weight: Tensor, padding: str | int | tuple[int, ...], groups: int) -> bool:
    return (
        groups == 1
        and tuple(weight.shape[2:]) == (1, 1)
        and not isinstance(padding, str)
        and set([padding] if isinstance(padding, int) else padding) == {0}
    )


def _has_few_pixels(input: Tensor) -> bool:
    """Channels last, so that the product needs no copy."""
    return input.shape[2] * input.shape[3] <= FEW_PIXELS and input.is_contiguous(memory_format=torch.channels_last)
