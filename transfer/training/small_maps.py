"""Convolutions of feature maps that are smaller than their kernel, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class PaddedSmallMaps(TorchFunctionMode):
    """Within it, a convolution whose kernel is larger than its input pads that input itself: same sums, less time.

    oneDNN has no fast gradient of the weights for a kernel that does not fit into the map without its padding, and
    falls back to a reference one. EfficientNet-Lite0's last stage has 3 x 3 maps at 96 px under kernels of 5 x 5: three
    such layers took a quarter of a training step (benchmarks/bench_loader.py). Padded by hand, the kernel fits.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return _conv2d(*args, **kwargs) if func is torch.conv2d else func(*args, **kwargs)


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    fits = all(side >= kernel for side, kernel in zip(input.shape[-2:], weight.shape[-2:], strict=True))
    if fits or isinstance(padding, str) or input.device.type != "cpu":
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    padded = F.pad(input, (columns, columns, rows, rows)).contiguous(memory_format=torch.channels_last)
    return torch.conv2d(padded, weight, bias, stride, 0, dilation, groups)
