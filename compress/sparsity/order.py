"""Hidden units may stand in any order: the one in which their weights are cheapest to code."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.dependency.group import Group, Slice
from compress.dependency.groups import find_groups


def in_order_of_weights(model: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy whose channels are sorted by how many weights feed and read them, the most first.

    It computes the same up to rounding: sums run in another order. A coder that learns as it goes meets its rows from
    the densest to the thinnest, each much like the one before.

    Args:
        input_size: (C, H, W).
    """
    ordered = copy.deepcopy(model).eval()
    for group in find_groups(ordered, next(ordered.parameters()).new_zeros(1, *input_size)).groups:
        reorder_(ordered, group, np.argsort(-_weights_of(ordered, group), kind="stable"))
    return ordered


def _weights_of(model: nn.Module, group: Group) -> NDArray[np.intp]:
    """(width,) how many weights live in the slices of each channel."""
    total = np.zeros(group.width, dtype=np.intp)
    for s in group.slices:
        if s.tensor == "weight" and isinstance(model.get_submodule(s.module), nn.Conv2d | nn.Linear):
            weight = model.get_submodule(s.module).weight
            assert isinstance(weight, torch.Tensor)
            alive = weight.detach().movedim(s.dim, 0).flatten(1) != 0
            np.add.at(total, s.roots, alive.sum(dim=1).cpu().numpy()[s.channels])
    return total


@torch.no_grad()
def reorder_(model: nn.Module, group: Group, order: NDArray[np.intp]) -> None:
    """Put channel order[i] of the group in place i, in every tensor of the group."""
    for s in group.slices:
        tensor = getattr(model.get_submodule(s.module), s.tensor)
        tensor.copy_(tensor.index_select(s.dim, torch.from_numpy(_index(s, order, tensor.shape[s.dim]))))


def _index(s: Slice, order: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """(size,) which of a module's channels comes where; a group's channel may have many of them, which stay in line."""
    index = np.arange(size)
    of_root = [s.channels[s.roots == root] for root in range(len(order))]
    for place, root in enumerate(order.tolist()):
        index[of_root[place]] = of_root[root]
    return index
