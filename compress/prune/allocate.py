"""Allocation: how many channels each group keeps, so that the network keeps a share of its MACs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.prune.groups import Group
from zoo.cost import count_cost
from zoo.errors import UsageError


@dataclass(frozen=True)
class LayerMacs:
    """MACs of one convolution or linear layer for one image, and what they are proportional to."""

    macs: int
    out_width: int
    in_width: int | None  # None for a depthwise convolution, whose MACs follow its outputs alone


def layer_macs(model: nn.Module, example: Tensor) -> dict[str, LayerMacs]:
    """MACs of every Conv2d and Linear that runs, for one image of the size of `example` (1, C, H, W)."""
    found: dict[str, LayerMacs] = {}
    for layer in count_cost(model, tuple(example.shape[1:])).layers:
        module = model.get_submodule(layer.name)
        if isinstance(module, nn.Conv2d) and layer.macs:
            in_width = None if module.groups > 1 else module.in_channels
            found[layer.name] = LayerMacs(layer.macs, module.out_channels, in_width)
        elif isinstance(module, nn.Linear) and layer.macs:
            found[layer.name] = LayerMacs(layer.macs, module.out_features, module.in_features)
    return found


def allocate_global(
    groups: Sequence[Group],
    scores: Sequence[NDArray[np.float64]],
    layers: dict[str, LayerMacs],
    *,
    total_macs: int,
    share: float,
    round_to: int = 8,
    floor: float = 0.1,
) -> list[NDArray[np.intp]]:
    """One threshold over all scores, the lowest that brings the MACs to at most `share` of `total_macs`.

    Args:
        scores: (width,) a group.
        total_macs: of the whole network; what is not in `layers` (attention products) stays.
        round_to: widths become multiples of this, where the layer is that wide: kernels work on blocks of 8.
        floor: share of its width that every group keeps.

    Returns:
        For each group the channels to keep, ascending.

    Raises:
        UsageError: the share is not in (0, 1], or no threshold reaches it.
    """
    if not 0 < share <= 1:
        raise UsageError(f"a share of MACs of {share} must be above 0 and at most 1: 0.5 keeps half")
    ranked = np.sort(np.concatenate(list(scores))) if scores else np.zeros(0)

    def keep_at(count: int) -> list[NDArray[np.intp]]:
        threshold = -np.inf if count == 0 else ranked[count - 1]
        return [_keep(score, threshold, round_to, floor) for score in scores]

    low, high = 0, len(ranked)
    smallest = macs_after(groups, keep_at(high), layers, total_macs)
    if smallest > share * total_macs:
        raise UsageError(
            f"{share:.0%} of the MACs is below what these groups can reach: at least {smallest / total_macs:.1%} "
            "stays; ask for more, or start from a smaller model"
        )
    while low < high:  # the fewest channels below the threshold that satisfy the budget
        middle = (low + high) // 2
        if macs_after(groups, keep_at(middle), layers, total_macs) <= share * total_macs:
            high = middle
        else:
            low = middle + 1
    return keep_at(low)


def macs_after(
    groups: Sequence[Group], keeps: Sequence[NDArray[np.intp]], layers: dict[str, LayerMacs], total_macs: int
) -> int:
    """MACs of the network with only the kept channels, computed without cutting anything."""
    removed = {(name, axis): 0 for name in layers for axis in ("out", "in")}
    for group, keep in zip(groups, keeps, strict=True):
        gone = np.ones(group.width, dtype=bool)
        gone[keep] = False
        for s in group.slices:
            if s.module in layers:
                removed[s.module, s.axis] += int(gone[s.roots].sum())
    total = float(total_macs)
    for name, layer in layers.items():
        remaining = 1 - removed[name, "out"] / layer.out_width
        if layer.in_width is not None:
            remaining *= 1 - removed[name, "in"] / layer.in_width
        total -= layer.macs * (1 - remaining)
    return round(total)


def _keep(score: NDArray[np.float64], threshold: float, round_to: int, floor: float) -> NDArray[np.intp]:
    width = len(score)
    count = max(int((score > threshold).sum()), int(np.ceil(floor * width)), 1)
    if width > round_to:
        count = min(width, max(round_to, round_to * round(count / round_to)))
    else:
        count = width
    best = np.argsort(-score, kind="stable")[:count]
    return np.sort(best)
