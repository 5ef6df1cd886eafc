"""The check of every cut: on one random batch the cut network has to compute what the masked one computes.

It costs a pass of two images through each (in float32, and in float64 where rounding leaves doubt): 3 to 7% of one
training step on 32 images of 224 pixels (a fifth of a step of ResNet-20), and recovery has hundreds of steps. What is
found unequal is halved until the groups are known whose cut alone makes it so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.dependency.cut import cut_copy
from compress.dependency.group import Grouping, Indices, Keeps
from compress.dependency.mask import mask_
from zoo.errors import SlimzooError
from zoo.ghost import copy_of

BATCH = 2
TOLERANCE = 1e-5  # of the answers' standard deviation: above what a constant rounded to float32 does in float64
ROUNDING = 1e3  # how much more float32 may differ, where a forward does not run in float64
SEED = 1
TRIALS = 40  # comparisons after the first, until all that is left unsure is named
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class UnequalCutError(SlimzooError):
    """The cut network would compute another function; `groups` name those to blame, and why."""

    def __init__(self, groups: dict[str, str]) -> None:
        super().__init__(f"cut, the model computes something else than masked: {', '.join(groups)}")
        self.groups = groups


def check_cut(model: nn.Module, input_size: tuple[int, ...], grouping: Grouping, keeps: Keeps) -> str:
    """Compare the cut with its mask; returns why that could not be done, "" where it could and they agree.

    Args:
        input_size: (C, H, W), or (L, C) and (L,) for sequences.

    Raises:
        UnequalCutError: they differ.
    """
    narrower = [i for i, (g, keep) in enumerate(zip(grouping.groups, keeps, strict=True)) if len(keep) < g.width]
    if not narrower:
        return ""
    trial = _Trial(model, input_size, grouping, keeps)
    first = trial.difference(narrower)
    if isinstance(first, str) or first <= TOLERANCE:
        return first if isinstance(first, str) else ""
    if trial.is_random():
        return "its forward draws random numbers"
    units: dict[int, list[int]] = {}
    for i in narrower:
        units.setdefault(i if grouping.groups[i].tied is None else -1 - (grouping.groups[i].tied or 0), []).append(i)
    blamed = {i for unit in _unequal([*units.values()], trial.is_equal) for i in unit}
    plain = any(isinstance(m, NORMS) and getattr(m, "weight", None) is None for m in model.modules())
    beyond = {i for i in blamed if plain and grouping.groups[i].normalized}
    if blamed == beyond:
        return "a norm without weights normalizes over what was cut, which a mask cannot express"
    reason = f"cut, it computes something else than silenced, by {first:.2g} standard deviations of the answers"
    raise UnequalCutError({grouping.groups[i].name: reason for i in sorted(blamed - beyond)})


def _unequal(units: list[list[int]], is_equal: Callable[[list[int]], bool]) -> list[list[int]]:
    """The units that are unequal alone, of some that are so together; all of them where none is."""
    if len(units) == 1:
        return units
    half, found = len(units) // 2, list[list[int]]()
    for part in (units[:half], units[half:]):
        if not is_equal([i for unit in part for i in unit]):
            found += _unequal(part, is_equal)
    return found or units


class _Trial:
    """Cuts some of the groups as decided, and compares with their mask."""

    def __init__(self, model: nn.Module, input_size: tuple[int, ...], grouping: Grouping, keeps: Keeps) -> None:
        self.model, self.grouping, self.keeps, self.trials = model, grouping, keeps, 0
        generator = torch.Generator().manual_seed(SEED)
        tokens = getattr(model, "vocab_size", None)
        if tokens is not None:
            self.images = torch.randint(0, tokens, (BATCH, *input_size[:1]), generator=generator)
        else:
            self.images = torch.randn(BATCH, *input_size, dtype=torch.float64, generator=generator)

    def is_equal(self, groups: list[int]) -> bool:
        self.trials += 1
        if self.trials > TRIALS:
            return False
        found = self.difference(groups)
        return isinstance(found, str) or found <= TOLERANCE

    def difference(self, groups: list[int]) -> float | str:
        """The largest difference, in standard deviations of the masked network's answers, or why it is unknown."""
        every = zip(self.grouping.groups, self.keeps, strict=True)
        keeps = [keep if i in groups else np.arange(group.width) for i, (group, keep) in enumerate(every)]
        for batch in (BATCH, 1):  # some forwards take one image alone
            rounded = self._difference(keeps, self.images[:batch], torch.float32)
            if isinstance(rounded, float):
                if rounded <= TOLERANCE:
                    return rounded
                exact = self._difference(keeps, self.images[:batch], torch.float64)  # is it more than rounding?
                return exact if isinstance(exact, float) else rounded / ROUNDING
        return rounded

    def _difference(self, keeps: list[Indices], images: Tensor, dtype: torch.dtype) -> float | str:
        whole = copy_of(self.model).cpu().eval().to(dtype)
        smaller = cut_copy(whole, self.grouping, keeps)
        mask_(whole, self.grouping.groups, keeps)
        try:
            expected = _answers(whole, images)
        except RuntimeError:  # numbers that a forward makes itself may have another type
            return "it does not run on random numbers"
        if not expected.isfinite().all():
            return "its answers are not finite"
        spread = max(float(expected.std()), 1e-6 * float(expected.abs().max()), 1e-30)
        return float((_answers(smaller, images) - expected).abs().max()) / spread

    def is_random(self) -> bool:
        whole = copy_of(self.model).cpu().eval().float()
        return not torch.equal(_answers(whole, self.images), _answers(whole, self.images, SEED + 1))


def _answers(network: nn.Module, images: Tensor, seed: int = SEED) -> Tensor:
    if images.is_floating_point():
        images = images.to(next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        answers = network(images)
    return torch.cat([t.double().flatten() for t in tree_leaves(answers) if isinstance(t, Tensor)])
