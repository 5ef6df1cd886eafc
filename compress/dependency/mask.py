"""The masked reference: the whole network with the cut channels silenced, which computes what the cut one computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compress.dependency.cut import removed
from compress.dependency.group import Group, Indices, flags

aten = torch.ops.aten
NORMS = {aten.native_layer_norm.default: 2, aten.native_group_norm.default: 1}  # the weight's place among arguments
STANDARDIZING = (aten.native_batch_norm, aten._native_batch_norm_legit)


def mask_(model: nn.Module, groups: Iterable[Group], keeps: Iterable[Indices]) -> None:
    """Silence, without cutting, what `cut_` would remove: every number of each slice of each lost channel.

    A LayerNorm or GroupNorm over a masked width, and a standardized weight, takes its moments over the kept channels,
    as the cut one does. Numbers that the forward derives from a width are those of the whole network, which is what a
    cut restores.
    """
    normalized = silence_(model, groups, keeps)
    if not normalized:
        return
    running: list[_KeptNorms] = []

    def enter(*_: Any) -> None:
        running.append(_KeptNorms(normalized).__enter__())  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        running.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)


def silence_(model: nn.Module, groups: Iterable[Group], keeps: Iterable[Indices]) -> dict[int, Tensor]:
    """Zero every number of each slice of each lost channel, and leave no hook on the model.

    Returns:
        For the addresses of weights of norms, which take moments over masked channels too, those that they keep.
    """
    groups = tuple(groups)
    kept = flags(groups, tuple(keeps))
    normalized: dict[int, Tensor] = {}
    seen_by_norms = any(group.normalized and not flag.all() for group, flag in zip(groups, kept, strict=True))
    modules = dict(model.named_modules())
    for (module, name), dims in removed(groups, kept, modules).items():
        tensor = getattr(modules[module], name)
        for dim, gone in dims.items():
            with torch.no_grad():
                tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(gone)), 0.0)
        if isinstance(modules[module], nn.LayerNorm | nn.GroupNorm) and name == "weight":
            normalized[tensor.data_ptr()] = torch.from_numpy(np.flatnonzero(~dims[0]))
        elif 1 in dims and seen_by_norms:
            normalized[tensor.data_ptr()] = torch.from_numpy(~dims[1]).repeat_interleave(tensor[0, 0].numel())
    return normalized


class _KeptNorms(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, norms with these weights (by address) normalize over these channels and give 0 for others.

    So does a BatchNorm over a weight (1, O, I x pixels), for each of I x pixels a flag, which standardizes it.
    """

    def __init__(self, kept: dict[int, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept = kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        weight = args[NORMS[func]] if func in NORMS else None
        if weight is not None and weight.data_ptr() in self.kept:
            x, kept, bias, eps = args[0], self.kept[weight.data_ptr()], args[NORMS[func] + 1], args[-1]
            if len(kept) < weight.shape[-1]:
                out, bias = torch.zeros_like(x), None if bias is None else bias[kept]
                if func is aten.native_layer_norm.default:
                    out[..., kept] = nn.functional.layer_norm(x[..., kept], (len(kept),), weight[kept], bias, eps)
                else:
                    groups = len((kept // (len(weight) // args[-2])).unique())
                    out[:, kept] = nn.functional.group_norm(x[:, kept], groups, weight[kept], bias, eps)
                return out, x.new_empty(0), x.new_empty(0)
        if func.overloadpacket in STANDARDIZING and args[0].dim() == 3 and args[0].data_ptr() in self.kept:
            x, kept = args[0], self.kept[args[0].data_ptr()]
            if len(kept) == x.shape[2] and any(a is True for a in args):
                out = torch.zeros_like(x)
                out[..., kept], *moments = func(x[..., kept], *args[1:], **(kwargs or {}))
                return out, *moments
        return func(*args, **(kwargs or {}))
