"""What a model costs, counted and not timed: parameters and multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Numbers that training may change; a shared one counts once, BatchNorm's statistics do not."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, input_size: tuple[int, ...]) -> int:
    """Multiply-accumulates for one image of (C, H, W): convolutions, Linears and both products of attention.

    BatchNorm (folded at export), activations, softmax and pooling are not counted. The count follows the operators that
    run, on a copy whose tensors have shapes and no contents: the model itself is neither run nor changed.
    """
    ghost = _ghost(model).eval()
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    counter = FlopCounterMode(display=False)
    # PyTorch's counter knows no CPU kernel of attention: its plain form is two matrix products, which it does know
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        ghost(torch.empty(1, *input_size, dtype=dtype, device="meta"))
    return counter.get_total_flops() // 2


def _ghost(model: nn.Module) -> nn.Module:
    """A copy on the meta device, without hooks: they belong to someone who did not ask for this pass."""
    memo: dict[int, object] = {id(tensor): _meta(tensor) for tensor in _tensors(model)}
    for module in model.modules():
        memo |= {id(hooks): type(hooks)() for hooks in (module._forward_hooks, module._forward_pre_hooks)}
    return copy.deepcopy(model, memo)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():  # plain attributes too: torch.nn.utils.prune keeps a masked weight in one
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _meta(tensor: Tensor) -> Tensor:
    ghost = tensor.detach().to("meta")
    return nn.Parameter(ghost, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else ghost
