"""From scores to masks: which weights a density leaves, ranked over the network, layer by layer, or N of every M."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.recovery.masks import sparse_layers
from compress.sparsity.scores import WeightScores
from compress.sparsity.settings import check_n_of_m
from zoo.errors import UsageError

Ranking = Callable[[WeightScores, float], dict[str, Tensor]]  # (scores, density) -> masks


def over_network(scores: WeightScores, density: float) -> dict[str, Tensor]:
    """One ranking of all weights; layers end with different densities."""
    total = sum(score.numel() for score in scores.values())
    flat = torch.cat([score.flatten() for score in scores.values()])
    keep = torch.zeros(total, dtype=torch.bool, device=flat.device)
    keep[flat.topk(kept_count(total, density), sorted=False).indices] = True
    masks, start = {}, 0
    for name, score in scores.items():
        masks[name] = keep[start : start + score.numel()].view(score.shape)
        start += score.numel()
    return masks


def by_layer(scores: WeightScores, density: float) -> dict[str, Tensor]:
    """The same density in every layer, a ranking each."""
    return {name: over_network({name: score}, density)[name] for name, score in scores.items()}


def n_of_m(scores: WeightScores, n: int, m: int) -> dict[str, Tensor]:
    """The best n of every m weights that follow each other along the inputs (Mishra et al. 2021, arXiv 2104.08378).

    2 of 4 is what NVIDIA's sparse tensor cores take: (O, I) in runs of m along I; a convolution's (O, I, kh, kw) along
    I at each place of the kernel. A layer whose inputs m does not divide stays dense.

    Raises:
        UsageError: not 0 < n <= m.
    """
    check_n_of_m(n, m)
    masks = {}
    for name, score in scores.items():
        rows = score.movedim(1, -1)  # (O, I) or (O, kh, kw, I)
        if rows.shape[-1] % m:
            masks[name] = torch.ones_like(score, dtype=torch.bool)
            continue
        runs = rows.reshape(-1, m)
        keep = torch.zeros_like(runs, dtype=torch.bool).scatter_(1, runs.topk(n, dim=1).indices, True)
        masks[name] = keep.view(rows.shape).movedim(-1, 1)
    return masks


def in_pattern(model: nn.Module, n: int, m: int) -> set[str]:
    """Names of the layers in which no run of m weights along the inputs has more than n that are not zero."""
    found = {name: layer.weight.detach().abs() for name, layer in sparse_layers(model).items()}
    fits = {name for name, weight in found.items() if weight.shape[1] % m == 0}
    masks = n_of_m({name: found[name] for name in fits}, n, m)
    return {name for name in fits if not found[name][~masks[name]].any()}


def kept_count(total: int, density: float) -> int:
    """How many of `total` weights a density leaves, at least one.

    Raises:
        UsageError: a density outside (0, 1].
    """
    if not 0 < density <= 1:
        raise UsageError(f"density={density} must be in (0, 1]: the share of the weights that stays, 0.05 for 1 in 20")
    return max(1, math.floor(total * density + 0.5))
