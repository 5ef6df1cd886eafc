"""How images and weights lie in memory: channels last, which is faster, or contiguous where a network wants that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.files.program import is_program


def layout_of(model: nn.Module) -> torch.memory_format:
    """Channels last, but for a program, and for a network with a part that `keep_contiguous_` was told of."""
    if is_program(model):
        return torch.contiguous_format
    told = any(_contiguous in module._forward_pre_hooks.values() for module in model.modules())
    return torch.contiguous_format if told else torch.channels_last


def keep_contiguous_(model: nn.Module) -> None:
    """Let its images come contiguous, whatever they were: its forward flattens by `view`, which wants that."""
    model.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in inputs)
