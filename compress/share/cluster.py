"""Share weights: how many values each tensor gets, k-means, and the training of the values."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from compress.share.shared import detach_codes_, share_, share_again_, shareable, tie_
from transfer.data.loader import Progress
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from transfer.training.step import LossFn
from zoo.errors import UsageError

LADDER = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)  # how many values a tensor may have
MANTISSA = 6  # bits of a shared value: 0.8% off at most, far below the distance of two
VALUE_BITS = MANTISSA + 5  # of one in a codebook, with its sign and exponent

ADAPTING = 0.75  # share of the steps in which weights move between the values; in the rest the values alone move

Loss = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Sharing:
    """An `after_step` of the one training loop: weights are shared after each step, and in the end which is fixed.

    LeNet-300-100 on mnist10k, shifted validation digits: 98.25% before and 98.26% after with 8,100 living weights and 8
    values for most, one seed, 97.91% where each stayed with the value that it had at first; 7,650 weights lost 0.1 to
    0.5 points, three seeds.

    Attributes:
        bit_price: see `share_`.
        adapting: steps in which weights move between the values.
    """

    bit_price: float
    adapting: int

    def __call__(self, model: nn.Module, step: int) -> None:
        if step <= self.adapting:
            share_again_(model, bit_price=self.bit_price)
        else:
            tie_(model)


def share_weights(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    values: Mapping[str, int],
    *,
    bit_price: float = 0.0,
    mantissa: int = MANTISSA,
    loss_fn: LossFn | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    title: str = "tuning shared values",
) -> nn.Module:
    """A copy of `model` in which each named tensor has that many different values besides 0, which are trained.

    Args:
        bit_price: see `share_`.
        mantissa: bits that a value is rounded to in the end.

    Raises:
        SlimzooError: the sharing was lost (a recipe with a moving average).
        see `finetune`.
    """
    shared = copy.deepcopy(model)
    steps = recipe.steps(len(data.train))
    share_(shared, values, bit_price=bit_price)
    if steps:
        sharing = Sharing(bit_price, round(ADAPTING * steps))
        shared = finetune(
            shared, data, recipe, loss_fn=loss_fn, after_step=sharing, checkpoints=checkpoints, progress=progress,
            title=title,
        ).model  # fmt: skip
    detach_codes_(shared, mantissa=mantissa)
    return shared.eval()


@dataclass(frozen=True)
class Allotted:
    """What one tensor was given.

    Attributes:
        living: its values that are not zero.
        values: how many different ones they become.
        bits: of all its codes and its codebook.
        loss_rise: by which the loss grows when this tensor alone is shared and nothing trained.
    """

    living: int
    values: int
    bits: float
    loss_rise: float


def values_for_bits(
    model: nn.Module, bits: float, loss: Loss, *, ladder: Sequence[int] = LADDER, progress: Progress | None = None
) -> dict[str, Allotted]:
    """How many values each tensor gets, so that a living weight takes at most `bits` on average.

    Each tensor alone is shared with each count of the ladder, and the loss measured. Sensitive ones get more values:
    from the most of all, the tensor goes down a rung whose loss grows least for the bits that it saves, until the
    average is reached (the greedy allocation of Shoham and Gersho 1988). Codebooks count too.

    Args:
        loss: of a model, on images that are not for the final test.

    Raises:
        UsageError: fewer bits than the lowest rung takes.
    """
    check_bits(model, bits, ladder)
    living = _living(model)
    losses = {}
    for done, name in enumerate(living):
        if progress is not None:
            progress("sensitivity", done, len(living), name)
        losses[name] = [loss(shared_alone(model, name, count)) for count in ladder]
    rungs = dict.fromkeys(living, len(ladder) - 1)
    costs = {name: [_bits(count, values) for values in ladder] for name, count in living.items()}
    while sum(costs[name][rung] for name, rung in rungs.items()) > bits * sum(living.values()):
        lower = [name for name, rung in rungs.items() if rung]  # some, as `check_bits` has seen
        name = min(lower, key=lambda name: _price(losses[name], costs[name], rungs[name]))
        rungs[name] -= 1
    whole = loss(model)
    return {
        name: Allotted(living[name], ladder[rung], costs[name][rung], losses[name][rung] - whole)
        for name, rung in rungs.items()
    }


def check_bits(model: nn.Module, bits: float, ladder: Sequence[int] = LADDER) -> None:
    """Refuse what the lowest rung for each tensor does not reach, by its shapes and zeros alone.

    Raises:
        UsageError: as `values_for_bits`.
    """
    living = _living(model)
    if not living:
        raise UsageError("no convolution or linear layer of the model has a weight that is not zero: nothing to share")
    least = sum(_bits(count, ladder[0]) for count in living.values()) / sum(living.values())
    if not least <= bits < math.inf:
        raise UsageError(f"bits={bits:g} cannot be reached: {ladder[0]} values for each tensor take {least:.2f}")


def _living(model: nn.Module) -> dict[str, int]:
    """How many weights of each tensor are not zero; those of zeros alone are left out."""
    counts = {name: int((tensor != 0).sum()) for name, tensor in shareable(model).items()}
    return {name: count for name, count in counts.items() if count}


def _bits(living: int, values: int) -> float:
    """Of a tensor's codes and codebook."""
    values = min(values, living)
    return living * math.log2(values) + values * VALUE_BITS


def _price(losses: list[float], costs: list[float], rung: int) -> float:
    """Loss for each bit that is saved by one rung down; a rung that saves nothing is left at once."""
    saved = costs[rung] - costs[rung - 1]
    return (losses[rung - 1] - losses[rung]) / saved if saved > 0 else -math.inf


@torch.no_grad()
def shared_alone(model: nn.Module, name: str, count: int) -> nn.Module:
    """A copy in which one tensor is shared and all others are as they were."""
    copied = copy.deepcopy(model)
    share_(copied, {name: count})
    detach_codes_(copied)
    return copied
