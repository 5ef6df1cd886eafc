"""Structured pruning: find the groups, score their channels, decide the widths, cut, and prove the effect."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.prune.allocate import allocate_global, layer_macs
from compress.prune.groups import Group, Slice, find_groups
from compress.prune.importance import Importance, l2_norm
from zoo.cost import count_macs
from zoo.errors import SlimzooError


@dataclass(frozen=True)
class Cut:
    """What was decided for one group."""

    group: Group
    keep: NDArray[np.intp]


@dataclass(frozen=True)
class Pruned:
    """A smaller model and how it came about.

    Attributes:
        model: in eval mode; the original was left alone.
        cuts: one a group, also where all was kept.
        whole: layer -> why its outputs were not cut.
        macs_before, macs_after: for one image.
    """

    model: nn.Module
    cuts: tuple[Cut, ...]
    whole: dict[str, str]
    macs_before: int
    macs_after: int


def prune_channels(
    model: nn.Module,
    input_size: tuple[int, int, int],
    *,
    macs: float,
    importance: Importance = l2_norm,
    round_to: int = 8,
    floor: float = 0.1,
) -> Pruned:
    """Remove the least important channels until at most a share `macs` of the MACs at `input_size` (C, H, W) is left.

    Raises:
        UsageError: a share outside (0, 1], or below what can be reached.
        SlimzooError: the cut model does not run, or did not become smaller.
    """
    example = torch.zeros(1, *input_size)
    grouping = find_groups(model, example)
    before = count_macs(model, input_size)
    scores = [importance(model, group).numpy() for group in grouping.groups]
    keeps = allocate_global(
        grouping.groups,
        scores,
        layer_macs(model, example),
        total_macs=before,
        share=macs,
        round_to=round_to,
        floor=floor,
    )
    cuts = tuple(Cut(group, keep) for group, keep in zip(grouping.groups, keeps, strict=True))
    smaller = copy.deepcopy(model).eval()
    cut_(smaller, cuts)
    after = _prove(smaller, input_size, before, macs)
    return Pruned(smaller, cuts, grouping.whole, before, after)


def cut_(model: nn.Module, cuts: Iterable[Cut]) -> None:
    """Remove from every module the slices of the channels that are not kept."""
    gone: dict[tuple[str, str], list[NDArray[np.intp]]] = defaultdict(list)
    for cut in cuts:
        for s in cut.group.slices:
            gone[s.module, s.axis].append(_gone(s, cut))
    for (name, axis), parts in gone.items():
        removed = np.unique(np.concatenate(parts))
        if len(removed):
            module = model.get_submodule(name)
            (remove_outputs_ if axis == "out" else remove_inputs_)(module, torch.from_numpy(removed))


def kept_outputs(model: nn.Module, cuts: Iterable[Cut]) -> dict[str, Tensor]:
    """Module name -> indices of the output channels that are left of the uncut `model`'s, for layers and norms."""
    kept = {
        name: torch.ones(len(module.weight), dtype=torch.bool)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d)
    }
    for cut in cuts:
        for s in cut.group.slices:
            if s.axis == "out":
                kept[s.module][torch.from_numpy(_gone(s, cut))] = False
    return {name: flags.nonzero().flatten() for name, flags in kept.items()}


def mask_(model: nn.Module, cuts: Iterable[Cut]) -> None:
    """Silence, without cutting, what `cut_` would remove: the rows of every weight, bias and norm of each lost channel.

    The masked model computes what the cut model computes; tests compare the two.
    """
    for cut in cuts:
        for s in cut.group.slices:
            module = model.get_submodule(s.module)
            removed = torch.from_numpy(_gone(s, cut))
            for tensor in (module.weight, module.bias):
                if isinstance(tensor, Tensor) and (s.axis == "out" or tensor.ndim > 1):
                    with torch.no_grad():
                        tensor.index_fill_(0 if s.axis == "out" else 1, removed, 0.0)
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.running_mean is not None:
                module.running_mean.index_fill_(0, removed, 0.0)


def _gone(s: Slice, cut: Cut) -> NDArray[np.intp]:
    kept = np.zeros(cut.group.width, dtype=bool)
    kept[cut.keep] = True
    return s.channels[~kept[s.roots]]


def _prove(model: nn.Module, input_size: tuple[int, int, int], before: int, share: float) -> int:
    for batch in (1, 2):
        try:
            with torch.no_grad():
                model(torch.zeros(batch, *input_size))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise SlimzooError(
                f"the pruned model does not run at batch {batch}: {reason}; its forward fixes a shape"
            ) from error
    after = count_macs(model, input_size)
    if after > share * before * (1 + 1e-9) or (share < 1 and after >= before):
        raise SlimzooError(
            f"asked for {share:.0%} of {before:,} MACs, got {after:,}: the cut had less effect than counted"
        )
    return after


def _without(tensor: Tensor, removed: Tensor, dim: int) -> Tensor:
    keep = torch.ones(tensor.shape[dim], dtype=torch.bool)
    keep[removed] = False
    return tensor.detach().index_select(dim, keep.nonzero().flatten())


def _cut_parameter_(module: nn.Module, name: str, removed: Tensor, dim: int = 0) -> None:
    old = getattr(module, name)
    if old is not None:
        setattr(module, name, nn.Parameter(_without(old, removed, dim), requires_grad=old.requires_grad))


@functools.singledispatch
def remove_outputs_(module: nn.Module, removed: Tensor) -> None:
    """Remove output channels by index. Register a rule for a new kind of layer with `@remove_outputs_.register`."""
    raise TypeError(f"no pruning rule for {type(module).__name__}; add one with @remove_outputs_.register")


@functools.singledispatch
def remove_inputs_(module: nn.Module, removed: Tensor) -> None:
    """Remove input channels by index."""
    raise TypeError(f"no pruning rule for {type(module).__name__}; add one with @remove_inputs_.register")


@remove_outputs_.register
def _(conv: nn.Conv2d, removed: Tensor) -> None:
    depthwise = conv.groups > 1
    _cut_parameter_(conv, "weight", removed)  # (O, I / groups, kh, kw)
    _cut_parameter_(conv, "bias", removed)
    conv.out_channels = len(conv.weight)
    if depthwise:
        conv.in_channels = conv.groups = conv.out_channels


@remove_inputs_.register
def _(conv: nn.Conv2d, removed: Tensor) -> None:
    _cut_parameter_(conv, "weight", removed, dim=1)
    conv.in_channels = conv.weight.shape[1]


@remove_outputs_.register
def _(linear: nn.Linear, removed: Tensor) -> None:
    _cut_parameter_(linear, "weight", removed)  # (O, I)
    _cut_parameter_(linear, "bias", removed)
    linear.out_features = len(linear.weight)


@remove_inputs_.register
def _(linear: nn.Linear, removed: Tensor) -> None:
    _cut_parameter_(linear, "weight", removed, dim=1)
    linear.in_features = linear.weight.shape[1]


@remove_outputs_.register(nn.BatchNorm1d)
@remove_outputs_.register(nn.BatchNorm2d)
def _(norm: nn.BatchNorm1d | nn.BatchNorm2d, removed: Tensor) -> None:
    _cut_parameter_(norm, "weight", removed)
    _cut_parameter_(norm, "bias", removed)
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean = _without(norm.running_mean, removed, 0)
        norm.running_var = _without(norm.running_var, removed, 0)
    norm.num_features -= len(removed)
