"""Units that sparsity has cut off: nothing feeds them, or nothing reads them. They can go whole."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.dependency.cut import cut_
from compress.dependency.group import Group
from compress.dependency.groups import find_groups
from compress.dependency.mask import silence_


def remove_dead_units(model: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy without the channels that no weight feeds or that no weight reads; what they fed or read is followed up.

    A channel that nothing reads makes no difference. One that nothing feeds is a constant, made of its bias alone; its
    bias is forgotten, which the training that follows makes up for. Channels that a norm shifts stay while they are
    read. A group keeps at least one channel.

    Args:
        model: without masks (`detach_masks_`), whose shapes would no longer fit.
        input_size: (C, H, W).
    """
    smaller = copy.deepcopy(model).eval()
    grouping = find_groups(smaller, next(smaller.parameters()).new_zeros(1, *input_size))
    groups = grouping.groups
    dead = [np.zeros(group.width, dtype=bool) for group in groups]
    while True:
        found = [_dead_channels(smaller, group) for group in groups]
        if all((new <= old).all() for new, old in zip(found, dead, strict=True)):
            break
        dead = [new | old for new, old in zip(found, dead, strict=True)]
        silence_(smaller, groups, [_living(gone) for gone in dead])
    cut_(smaller, grouping, [_living(gone) for gone in dead])
    return smaller


def _living(gone: NDArray[np.bool_]) -> NDArray[np.intp]:
    keep = np.flatnonzero(~gone)
    return keep if len(keep) else np.array([0])


def _dead_channels(model: nn.Module, group: Group) -> NDArray[np.bool_]:
    """(width,) True where no weight feeds the channel, or none reads it."""
    alive = {axis: np.zeros(group.width, dtype=bool) for axis in ("out", "in")}
    for s in group.slices:
        module = model.get_submodule(s.module)
        if not isinstance(module, nn.Conv2d | nn.Linear):
            alive["out"][s.roots] = True  # a norm's shift feeds it
            continue
        if s.tensor != "weight":
            continue
        weight = module.weight.detach() != 0
        per_channel = _any(weight, 0 if s.axis == "out" else 1)
        np.logical_or.at(alive[s.axis], s.roots, per_channel.cpu().numpy()[s.channels])
    dead: NDArray[np.bool_] = ~(alive["out"] & alive["in"])
    return dead


def _any(flags: Tensor, dim: int) -> Tensor:
    return flags.movedim(dim, 0).flatten(1).any(dim=1)
