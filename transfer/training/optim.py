"""Optimizers over a model's stages, and the schedules of their rates as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from transfer.training.recipe import OptimizerName, Recipe, ScheduleName
from zoo.classifier import stages
from zoo.errors import UsageError

Groups = list[dict[str, Any]]


def _sgd(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    """Nesterov's momentum, as He et al. 2018 (arXiv 1812.01187, algorithm 1) and Kornblith et al. 2019 train."""
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=nesterov, fused=_can_fuse(groups))


def _adagrad(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
    return torch.optim.Adagrad(groups, lr=0.0, fused=on_cpu and _can_fuse(groups))


def _rmsprop(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, lr=0.0, alpha=0.9, eps=1e-6)  # 0.9: Hinton 2012, lecture 6e


def _adam(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=0.0, betas=(recipe.momentum, 0.999), eps=1e-6, fused=_can_fuse(groups))


def _adamw(groups: Groups, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.0, betas=(recipe.momentum, 0.999), eps=1e-6, fused=_can_fuse(groups))


OPTIMIZERS: dict[OptimizerName, Callable[[Groups, Recipe], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adamw,
}


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over groups of parameters that share a peak rate and are decayed or not.

    Each group carries "peak_lr", which `set_rates_` scales: `lr` for the classifier, `backbone_lr` for the stage before
    it, and `layer_decay` times the next later one's for each earlier one (`zoo.classifier.stages`). Call it when the
    model is on its device and in its memory format.
    """
    rates = _peak_rates(model, recipe)
    spared: set[str] = set(getattr(model, "no_weight_decay", set)())  # what timm's models name themselves
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = is_decayed(name, parameter) and name not in spared
            groups.setdefault((rates[parameter], decayed), []).append(parameter)
    if not groups:
        raise UsageError("no parameter of the model is trainable: nothing has requires_grad")
    optimizer = OPTIMIZERS[recipe.optimizer](
        [
            {"params": parameters, "peak_lr": rate, "weight_decay": recipe.weight_decay if decayed else 0.0}
            for (rate, decayed), parameters in groups.items()
        ],
        recipe,
    )
    optimizer.register_load_state_dict_post_hook(_match_layouts_)
    return optimizer


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether it is a layer's weight matrix or kernel: more than one dimension and called a weight.

    Biases, norms and layer scales are vectors; class tokens, position embeddings and tables of attention biases have
    more dimensions and names of their own.
    """
    return parameter.ndim > 1 and any("weight" in part for part in name.split(".")[-2:])


def freeze_stages_(model: nn.Module, recipe: Recipe) -> None:
    """Switch off gradients of the first `recipe.frozen_stages` stages.

    Raises:
        UsageError: that leaves nothing to train.
    """
    if not recipe.frozen_stages:
        return
    found = stages(model)
    if recipe.frozen_stages >= len(found):
        raise UsageError(
            f"frozen_stages={recipe.frozen_stages} must be below {len(found)}, the stages of {type(model).__name__} "
            "with its classifier"
        )
    for stage in found[: recipe.frozen_stages]:
        for parameter in stage.parameters:
            parameter.requires_grad_(False)


def _peak_rates(model: nn.Module, recipe: Recipe) -> dict[nn.Parameter, float]:
    if recipe.lr == recipe.backbone_lr and recipe.layer_decay == 1:
        return dict.fromkeys(model.parameters(), recipe.lr)  # of models without stages too
    *backbone, head = stages(model)
    rates = dict.fromkeys(head.parameters, recipe.lr)
    for depth, stage in enumerate(reversed(backbone)):
        rates |= dict.fromkeys(stage.parameters, recipe.backbone_lr * recipe.layer_decay**depth)
    return rates


def _can_fuse(groups: Groups) -> bool:
    """One pass over memory instead of a dozen: 4 to 9 times as fast on a CPU, and equal to the last bit or so."""
    parameters = [p for group in groups for p in group["params"]]
    kinds = {(p.device.type, p.dtype) for p in parameters}
    return len(kinds) == 1 and kinds <= {(device, torch.float32) for device in ("cpu", "cuda")}


def _match_layouts_(optimizer: torch.optim.Optimizer) -> None:
    """Give each loaded moment its parameter's strides.

    Files hold contiguous tensors, while the fused kernels walk through parameter and moments side by side in memory:
    for a channels-last weight they would pair up the wrong elements, without a word.
    """
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


# ---- schedules: share of the peak rate at a step in 0..steps-1, of which the first round(warmup * steps) rise linearly


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """The rise, then a cosine that reaches zero at the last step (Smith and Topin 2018; the cosine is fastai's)."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / max(1, steps - rise)))


def _after_rise(step: int, steps: int, warmup: float, fall: Callable[[float], float]) -> float:
    """The rise, then `fall` of the share in [0, 1) of the remaining steps that are over."""
    rise = round(warmup * steps)
    return (step + 1) / rise if step < rise else fall((step - rise) / max(1, steps - rise))


def constant(step: int, steps: int, warmup: float) -> float:
    return _after_rise(step, steps, warmup, lambda over: 1.0)


def cosine(step: int, steps: int, warmup: float) -> float:
    """Loshchilov and Hutter 2017 (SGDR, https://arxiv.org/abs/1608.03983), eq. 5, without restarts."""
    return _after_rise(step, steps, warmup, lambda over: 0.5 * (1 + math.cos(math.pi * over)))


def exponential(step: int, steps: int, warmup: float) -> float:
    """Towards a thousandth, which is where the three drops of `step_down` end."""
    return _after_rise(step, steps, warmup, lambda over: 1e-3**over)


def step_down(step: int, steps: int, warmup: float) -> float:
    """A tenth at 30%, 60% and 90% of the way: BiT-HyperRule (Kolesnikov et al. 2020, arXiv 1912.11370)."""
    return _after_rise(step, steps, warmup, lambda over: 0.1 ** sum(over >= drop for drop in (0.3, 0.6, 0.9)))


SCHEDULES: dict[ScheduleName, Callable[[int, int, float], float]] = {
    "constant": constant,
    "step": step_down,
    "exponential": exponential,
    "cosine": cosine,
    "one-cycle": one_cycle,
}


def rate(step: int, steps: int, recipe: Recipe) -> float:
    """Share of the peak rates at a step in 0..steps-1, by the recipe's schedule."""
    return highest(steps, recipe) * SCHEDULES[recipe.schedule](step, steps, recipe.warmup)


def highest(steps: int, recipe: Recipe) -> float:
    """The largest share of the peak rates that a run of so many steps takes: 1 of a long one."""
    return min(1.0, max(1, round(recipe.warmup * steps)) / recipe.least_rise) ** 2


def set_rates_(optimizer: torch.optim.Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak_lr"]
