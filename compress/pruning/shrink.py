"""Sparse training before the cut: an `after_step` of the one training loop that draws channels towards zero.

What the loss does not need goes to zero and can be cut for nothing; what it needs is pulled back by the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from compress.dependency.group import Group, Grouping, Slice
from compress.pruning.importance import LAYERS, NORMS
from zoo.errors import UsageError, did_you_mean

Penalty = Literal["group-lasso", "bn-scale"]
STRENGTH = 0.5  # of a group's mean norm, taken from each channel's in all, were there no gradient


class Shrink:
    """After each step the proximal operator of a penalty: norms of channels become smaller by a constant, down to 0.

    "group-lasso": the norm is over all weights that go with the channel, in all coupled layers (Yuan and Lin 2006; for
    filters Wen et al. 2016, arXiv 1608.03665, eq. 3; over dependency groups Fang et al. 2023, arXiv 2301.12900, eq. 5).
    "bn-scale": of its BatchNorms' scales alone (Liu et al. 2017, Network Slimming, arXiv 1708.06519, eq. 1).

    Args:
        model: what is to be trained; norms are relative to its own.
        steps: how many the training will have.
        strength: see `STRENGTH`.

    Raises:
        UsageError: an unknown penalty; no group has what it is on.
    """

    def __init__(
        self, model: nn.Module, grouping: Grouping, penalty: Penalty, *, steps: int, strength: float = STRENGTH
    ) -> None:
        check_penalty(penalty)
        found = [(group, _slices(model, group, penalty)) for group in grouping.groups]
        self.groups = [(group, slices) for group, slices in found if slices]
        if not self.groups:
            what = "has a BatchNorm; take group-lasso" if grouping.groups else "can be cut"
            raise UsageError(f"penalty={penalty!r}: no group of this model {what}")
        self.amounts = [
            strength * float(_norms(model, group, slices).mean()) / max(1, steps) for group, slices in self.groups
        ]

    @torch.no_grad()
    def __call__(self, model: nn.Module, step: int) -> None:
        for (group, slices), amount in zip(self.groups, self.amounts, strict=True):
            norms = _norms(model, group, slices)
            factors = (1 - amount / norms.clamp(min=1e-12)).clamp(min=0)
            for s, weight in _weights(model, slices):
                shape = [1] * weight.dim()
                shape[s.dim] = weight.shape[s.dim]
                whole = torch.ones(weight.shape[s.dim], dtype=torch.float64)
                whole[torch.from_numpy(s.channels)] = factors[torch.from_numpy(s.roots)]
                weight.mul_(whole.to(weight).view(shape))


def check_penalty(penalty: str) -> None:
    """Raises:
    UsageError: it is none.
    """
    if penalty not in get_args(Penalty):
        near = did_you_mean(penalty, get_args(Penalty), "it must be one of " + ", ".join(get_args(Penalty)))
        raise UsageError(f"unknown penalty {penalty!r}; {near}")


def _slices(model: nn.Module, group: Group, penalty: Penalty) -> list[Slice]:
    kinds = LAYERS if penalty == "group-lasso" else NORMS
    return [s for s in group.slices if s.tensor == "weight" and isinstance(model.get_submodule(s.module), kinds)]


def _weights(model: nn.Module, slices: list[Slice]) -> Iterator[tuple[Slice, Tensor]]:
    for s in slices:
        yield s, model.get_parameter(s.name)


def _norms(model: nn.Module, group: Group, slices: list[Slice]) -> Tensor:
    """(width,) of each channel over these slices, float64 on the CPU."""
    squares = torch.zeros(group.width, dtype=torch.float64)
    for s, weight in _weights(model, slices):
        rest = [d for d in range(weight.dim()) if d != s.dim]
        each = weight.detach().square()
        each = (each.sum(dim=rest) if rest else each).double().cpu()
        if not np.array_equal(s.channels, np.arange(len(each))):
            each = each[torch.from_numpy(s.channels)]
        squares.index_add_(0, torch.from_numpy(s.roots), each)
    return squares.sqrt()
