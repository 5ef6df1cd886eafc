"""The optimizer's parameter groups and the one-cycle schedule as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from transfer.recipe import Recipe
from zoo.classifier import classifier_name


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) over four groups: backbone and classifier, decayed and not.

    Each group carries "peak_lr", which `set_rates_` scales.
    """
    head = classifier_name(model) + "."
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(head), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak_lr": recipe.lr if in_head else recipe.backbone_lr,
                "weight_decay": recipe.weight_decay if is_matrix else 0.0,
            }
            for (in_head, is_matrix), parameters in groups.items()
        ],
        lr=0.0,
        eps=1e-6,
    )


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at a step in 0..steps-1: linear rise over `warmup` of the steps, then cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / max(1, steps - rise)))


def set_rates_(optimizer: torch.optim.Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak_lr"]
