"""The cut: tensors without the channels that go, and the modules' numbers that say how wide they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.dependency.group import Flags, Group, Grouping, Indices, Keeps, flags
from compress.dependency.sizes import Modules
from zoo.ghost import copy_of

Place = tuple[str, str]  # module, tensor


def cut_(model: nn.Module, grouping: Grouping, keeps: Keeps) -> None:
    """Remove every slice of the channels that are not kept, and set the attributes that follow from it.

    Args:
        keeps: for each group the channels that stay, ascending.
    """
    modules = dict(model.named_modules())
    for (module, name), smaller in _smaller(grouping.groups, keeps, modules).items():
        owner, tensor = modules[module], getattr(modules[module], name)
        if isinstance(tensor, nn.Parameter):
            tensor.data, tensor.grad = smaller, None  # the same object: a tensor that two layers share stays shared
        else:
            setattr(owner, name, smaller)
    _tell_widths_(modules, grouping, keeps)


def cut_copy(model: nn.Module, grouping: Grouping, keeps: Keeps) -> nn.Module:
    """Cut a copy, in eval mode, as `cut_` does; what goes is not copied first."""
    modules = dict(model.named_modules())
    memo: dict[int, Any] = {}
    for (module, name), smaller in _smaller(grouping.groups, keeps, modules).items():
        tensor = getattr(modules[module], name)
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = type(tensor)(smaller, tensor.requires_grad)
        else:
            memo[id(tensor)] = smaller
    copied = copy_of(model, memo).train().eval()  # what a forward has kept goes: it is as wide as it was
    _tell_widths_({name: memo[id(module)] for name, module in modules.items()}, grouping, keeps)
    return copied


def _smaller(groups: Sequence[Group], keeps: Keeps, modules: Modules) -> dict[Place, Tensor]:
    """(module, tensor) -> what is left of it, for those of which something goes."""
    found = _rescaled(groups, keeps, modules)
    for place, dims in removed(groups, flags(groups, keeps), modules).items():
        for dim, gone in dims.items():
            keep = np.flatnonzero(~gone)
            if len(keep) < len(gone):
                tensor = found[place] if place in found else getattr(modules[place[0]], place[1]).detach()
                found[place] = _selected(tensor, dim, keep)
    return found


def _rescaled(groups: Sequence[Group], keeps: Keeps, modules: Modules) -> dict[Place, Tensor]:
    """The tensors that make good for a factor which the forward derives from a width (see `Rescaling`)."""
    found: dict[Place, Tensor] = {}
    for group, keep in zip(groups, keeps, strict=True):
        for scale in group.rescaled if len(keep) < group.width else ():
            for name in ("weight", "bias"):
                tensor = getattr(modules[scale.module], name)
                if isinstance(tensor, Tensor):
                    held = found.setdefault((scale.module, name), tensor.detach().clone())
                    held[torch.from_numpy(scale.rows)] *= (len(keep) / group.width) ** scale.exponent
    return found


def _selected(tensor: Tensor, dim: int, keep: Indices) -> Tensor:
    if tensor.is_meta:
        shape = [len(keep) if d == dim else n for d, n in enumerate(tensor.shape)]
        return torch.empty(shape, dtype=tensor.dtype, device="meta")
    return tensor.index_select(dim, torch.from_numpy(keep).to(tensor.device))


def removed(groups: Sequence[Group], kept: Sequence[Flags], modules: Modules) -> dict[Place, dict[int, Flags]]:
    """For each tensor that is cut: dimension -> whether each index along it goes."""
    found: dict[Place, dict[int, Flags]] = {}
    for group, flag in zip(groups, kept, strict=True):
        for s in group.slices:
            dims = found.setdefault((s.module, s.tensor), {})
            if s.dim not in dims:
                tensor = getattr(modules[s.module], s.tensor)
                dims[s.dim] = np.zeros(tensor.shape[s.dim], dtype=bool)
            dims[s.dim][s.channels[~flag[s.roots]]] = True
    return found


def _tell_widths_(modules: Modules, grouping: Grouping, keeps: Keeps) -> None:
    """Set the modules' numbers that say how wide their tensors are."""
    flat = grouping.flat(keeps)
    for attribute in grouping.attributes:
        owner = modules[attribute.module]
        numbers = [width.left(flat) for width in attribute.widths]
        if attribute.several:
            setattr(owner, attribute.name, type(getattr(owner, attribute.name))(numbers))
        else:
            setattr(owner, attribute.name, numbers[0])
    for layer in modules.values():
        for name, size in _widths(layer):
            if getattr(layer, name) != size:  # to set one is what takes time
                setattr(layer, name, size)


def _widths(layer: nn.Module) -> Iterator[tuple[str, int]]:
    """What a layer says of its own widths, read off its tensors."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        rows, columns = layer.weight.shape[:2]
        outputs, inputs = (columns * layer.groups, rows) if layer.transposed else (rows, columns * layer.groups)
        yield from (("out_channels", outputs), ("in_channels", inputs))
    elif isinstance(layer, nn.Linear):
        yield from zip(("out_features", "in_features"), layer.weight.shape, strict=True)
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        for tensor in (layer.weight, layer.running_mean):
            if tensor is not None:
                yield "num_features", len(tensor)
    elif isinstance(layer, nn.GroupNorm) and layer.weight is not None:
        yield "num_channels", len(layer.weight)
    elif isinstance(layer, nn.Embedding):
        yield from zip(("num_embeddings", "embedding_dim"), layer.weight.shape, strict=True)
    elif isinstance(layer, nn.PReLU):
        yield "num_parameters", len(layer.weight)
    elif isinstance(layer, nn.RNNBase):
        yield "input_size", layer.get_parameter("weight_ih_l0").shape[1]
    elif isinstance(layer, nn.RNNCellBase):
        yield "input_size", layer.weight_ih.shape[1]
