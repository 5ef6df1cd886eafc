"""Structured pruning: find the groups, score their channels, decide the widths, cut, and prove the effect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.dependency import cut, mask
from compress.dependency.group import Group, Grouping, Indices, describe_whole
from compress.dependency.groups import find_groups
from compress.dependency.trace import line_of
from compress.dependency.verify import UnequalCutError, check_cut
from compress.pruning.allocate import Allocation, Scores, allocate, check_share
from compress.pruning.budget import Cost
from compress.pruning.importance import Importance, l2_norm
from zoo.cost import count_macs, count_parameters
from zoo.errors import SlimzooError, first_line


@dataclass(frozen=True)
class Cut:
    """What was decided for one group.

    Attributes:
        keep: channels that stay, ascending.
        lost: share of the group's sum of scores that goes with the others.
    """

    group: Group
    keep: NDArray[np.intp]
    lost: float = 0.0


@dataclass(frozen=True)
class Pruned:
    """A smaller model and how it came about.

    Attributes:
        model: in eval mode; the original was left alone.
        unchecked: why it could not be compared with the masked model, "" where it could and they agree.
        cuts: one for each group, also where all was kept.
        whole: layer -> why its outputs were not cut.
        macs_before, macs_after: for one image.
        grouping: what was found before anything was cut.
    """

    model: nn.Module
    cuts: tuple[Cut, ...]
    whole: dict[str, str]
    macs_before: int
    macs_after: int
    grouping: Grouping
    unchecked: str = ""

    @property
    def notes(self) -> list[str]:
        """What was left whole, and what could not be compared, a line each."""
        lines = describe_whole(self.whole)
        return [*lines, f"the cut was not compared with its mask: {self.unchecked}"] if self.unchecked else lines


def prune_channels(
    model: nn.Module,
    input_size: tuple[int, ...],
    *,
    macs: float,
    importance: Importance = l2_norm,
    allocation: Allocation = allocate,
    round_to: int = 8,
    floor: float = 0.1,
    normalized: bool = False,
) -> Pruned:
    """Remove the least important channels until at most a share `macs` of the MACs at `input_size` (C, H, W) is left.

    Args:
        allocation: how many channels each group keeps; see compress/pruning/allocate.py and sensitivity.py.
        round_to, floor: of every group's width; see `allocate`.
        normalized: also cut widths that a LayerNorm or GroupNorm normalizes over; see `find_groups`.

    Raises:
        UsageError: a share outside (0, 1], or below what can be reached.
        SlimzooError: the cut model does not run, or did not become smaller.
    """
    check_share(macs)

    def cut_to_macs(grouping: Grouping, scores: Scores) -> Pruned:
        keeps = allocation(grouping, scores, share=macs, cost=Cost.macs(grouping), round_to=round_to, floor=floor)
        return cut_channels(model, input_size, grouping, keeps, scores)

    grouping = find_groups(model, torch.empty(1, *input_size, device="meta"), normalized=normalized)
    pruned = accepted(cut_to_macs, grouping, scored(model, grouping, importance))
    if pruned.macs_after > macs * pruned.macs_before * (1 + 1e-9):
        raise SlimzooError(
            f"asked for {macs:.0%} of {pruned.macs_before:,} MACs, got {pruned.macs_after:,}: the cut had less effect "
            "than counted"
        )
    return pruned


def scored(model: nn.Module, grouping: Grouping, importance: Importance) -> list[NDArray[np.float64]]:
    """(width,) a group."""
    return [importance(model, group).numpy() for group in grouping.groups]


def accepted(by: Callable[[Grouping, Scores], Pruned], grouping: Grouping, scores: Scores) -> Pruned:
    """The first cut that computes what the masked model does: groups of which that is not so are left whole."""
    while True:
        try:
            return by(grouping, scores)
        except UnequalCutError as error:
            cut = [group.name not in error.groups for group in grouping.groups]
            grouping = grouping.without(error.groups)
            scores = [score for score, c in zip(scores, cut, strict=True) if c]


def cut_channels(
    model: nn.Module, input_size: tuple[int, ...], grouping: Grouping, keeps: Sequence[Indices], scores: Scores
) -> Pruned:
    """A copy of the model with only these channels of each group: it runs, is smaller, and computes what the mask does.

    Raises:
        SlimzooError: it does not run, or is not smaller.
        UnequalCutError: it computes something else than the masked model.
    """
    smaller = cut.cut_copy(model, grouping, keeps)
    before = grouping.macs
    try:
        after = count_macs(smaller, input_size)
    except RuntimeError as error:
        reason = first_line(error)
        raise SlimzooError(
            f"the pruned model does not run: {reason}{line_of(error)}; its forward fixes a shape there"
        ) from error
    narrower = any(len(keep) < group.width for keep, group in zip(keeps, grouping.groups, strict=True))
    for unit, had, has in (("MACs", before, after), ("parameters", count_parameters(model), count_parameters(smaller))):
        if narrower and has >= had:
            raise SlimzooError(f"channels were cut and the model has {has:,} {unit}, {had:,} before: no effect")
    cuts = tuple(
        Cut(group, keep, _lost(score, keep)) for group, keep, score in zip(grouping.groups, keeps, scores, strict=True)
    )
    unchecked = check_cut(model, input_size, grouping, keeps)
    return Pruned(smaller, cuts, grouping.whole, before, after, grouping, unchecked)


def _lost(score: NDArray[np.float64], keep: NDArray[np.intp]) -> float:
    total = float(score.sum())
    return 1 - float(score[keep].sum()) / total if total else 0.0


def kept_outputs(model: nn.Module, cuts: Iterable[Cut]) -> dict[str, Tensor]:
    """Module name -> indices of the output channels that are left of the uncut `model`'s, for layers and norms."""
    kept = {
        name: torch.ones(len(module.weight), dtype=torch.bool)
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
    }
    for each in cuts:
        gone = torch.ones(each.group.width, dtype=torch.bool)
        gone[torch.from_numpy(each.keep)] = False
        for s in each.group.slices:
            if s.tensor == "weight" and s.dim == 0:
                kept[s.module][torch.from_numpy(s.channels)[gone[torch.from_numpy(s.roots)]]] = False
    return {name: flags.nonzero().flatten() for name, flags in kept.items()}


def mask_(model: nn.Module, cuts: Iterable[Cut]) -> None:
    """Silence what was cut (see compress/dependency/mask.py): the model then computes what the cut model computes."""
    cuts = tuple(cuts)
    mask.mask_(model, [c.group for c in cuts], [c.keep for c in cuts])
