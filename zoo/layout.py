"""How images and weights lie in memory: channels last, which is faster, or contiguous where a network wants that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

READ = "slimzoo"  # in the `meta` of a module that was read as a torch.export program


def layout_of(model: nn.Module) -> torch.memory_format:
    """Channels last, but for a program, and for a network with a part that `keep_contiguous_` was told of."""
    if is_program(model):
        return torch.contiguous_format
    told = any(_contiguous in module._forward_pre_hooks.values() for module in model.modules())
    return torch.contiguous_format if told else torch.channels_last


def is_program(model: nn.Module) -> bool:
    """Whether a network was read as a program, which has operators and no layers that could be cut or trained."""
    return bool(getattr(model, "meta", {}).get(READ))


def keep_contiguous_(model: nn.Module) -> None:
    """Let its images come contiguous, whatever they were: its forward flattens by `view`, which wants that."""
    model.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in inputs)
