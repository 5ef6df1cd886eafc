"""Weights between two networks."""

from __future__ import annotations

import torch
from torch import nn

from zoo.ghost import copy_of


@torch.no_grad()
def averaged(start: nn.Module, trained: nn.Module, share: float) -> nn.Module:
    """A network of the weights on the line from the start to what was trained: more robust than either end.

    Wortsman et al. 2022 (WiSE-FT), https://arxiv.org/abs/2109.01903, sec. 3.

    Args:
        start, trained: of the same tensors; the result is a copy of the second.
        share: of the way.
    """
    mean = copy_of(trained)
    begun = start.state_dict()
    for name, tensor in mean.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.lerp(begun[name], tensor, share))
    return mean
