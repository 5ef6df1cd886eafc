"""The cut: tensors without the channels that go, and the modules' numbers that say how wide they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.prune.group import Group, Grouping, Indices, flags
from zoo.ghost import copy_of


def cut_(model: nn.Module, grouping: Grouping, keeps: Sequence[Indices]) -> None:
    """Remove every slice of the channels that are not kept, and set the attributes that follow from it.

    Args:
        keeps: for each group the channels that stay, ascending.
    """
    kept, flat = flags(grouping.groups, keeps), grouping.flat(keeps)
    for group, keep in zip(grouping.groups, keeps, strict=True):
        if len(keep) < group.width:
            _rescale_(model, group, len(keep) / group.width)
    modules = dict(model.named_modules())
    for (module, tensor), dims in removed(grouping.groups, kept, modules).items():
        for dim, gone in dims.items():
            if gone.any():
                _select_(modules[module], tensor, dim, torch.from_numpy(np.flatnonzero(~gone)))
    for attribute in grouping.attributes:
        owner = modules[attribute.module]
        numbers = [width.left(flat) for width in attribute.widths]
        if attribute.several:
            setattr(owner, attribute.name, type(getattr(owner, attribute.name))(numbers))
        else:
            setattr(owner, attribute.name, numbers[0])
    for layer in modules.values():
        _count_(layer)


def cut_copy(model: nn.Module, grouping: Grouping, keeps: Sequence[Indices]) -> nn.Module:
    """The same of a copy, in eval mode."""
    smaller = copy_of(model).eval()
    cut_(smaller, grouping, keeps)
    return smaller


def removed(
    groups: Sequence[Group], kept: Sequence[NDArray[np.bool_]], modules: Mapping[str, nn.Module]
) -> dict[tuple[str, str], dict[int, NDArray[np.bool_]]]:
    """(module, tensor) -> dimension -> whether each index along it goes."""
    found: dict[tuple[str, str], dict[int, NDArray[np.bool_]]] = {}
    for group, flag in zip(groups, kept, strict=True):
        for s in group.slices:
            dims = found.setdefault((s.module, s.tensor), {})
            if s.dim not in dims:
                tensor = getattr(modules[s.module], s.tensor)
                dims[s.dim] = np.zeros(tensor.shape[s.dim], dtype=bool)
            dims[s.dim][s.channels[~flag[s.roots]]] = True
    return found


def _rescale_(model: nn.Module, group: Group, share: float) -> None:
    """Make good for a factor that the forward derives from the width (see `Rescaling`)."""
    for scale in group.rescaled:
        layer = model.get_submodule(scale.module)
        for tensor in (layer.weight, layer.bias):
            if isinstance(tensor, Tensor):
                with torch.no_grad():
                    tensor[torch.from_numpy(scale.rows)] *= share**scale.exponent


def _select_(owner: nn.Module, name: str, dim: int, keep: Tensor) -> None:
    tensor = getattr(owner, name)
    if tensor.is_meta:
        smaller = tensor.new_empty([len(keep) if d == dim else n for d, n in enumerate(tensor.shape)])
    else:
        smaller = tensor.detach().index_select(dim, keep.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        tensor.data, tensor.grad = smaller, None  # the same object: a tensor that two layers share stays shared
    else:
        setattr(owner, name, smaller)


def _count_(layer: nn.Module) -> None:
    """What a layer says of its own widths, read off its tensors."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        rows, columns = layer.weight.shape[:2]
        if layer.transposed:
            layer.in_channels, layer.out_channels = rows, columns * layer.groups
        else:
            layer.out_channels, layer.in_channels = rows, columns * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        for tensor in (layer.weight, layer.running_mean):
            if tensor is not None:
                layer.num_features = len(tensor)
    elif isinstance(layer, nn.GroupNorm) and layer.weight is not None:
        layer.num_channels = len(layer.weight)
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
