"""Share weights: how many values each tensor gets, k-means, and the training of the values."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.clustering.kmeans import kmeans
from compress.clustering.shared import detach_codes_, share_, share_again_, shareable, tie_
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from transfer.training.step import LossFn
from zoo.errors import UsageError
from zoo.progress import Progress

LADDER = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)  # how many values a tensor may have
MANTISSA = 6  # bits of a shared value: 0.8% off at most, far below the distance of two
VALUE_BITS = MANTISSA + 5  # of one in a codebook, with its sign and exponent

# Rungs at which each tensor's loss is measured first: low ones, where the rise is no noise. ResNet-20 after 2 epochs of
# digits (validation loss 0.455), shared and not yet trained, at 4, 3 and 2 bits: 0.455, 0.514 and 1.017 from 64 to 68
# losses, 0.432, 0.519 and 1.065 from all 276.
PROBES = (0, 1)
NOTHING = 1e-9  # loss for a squared error, of tensors that showed no rise at all

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
            shared,
            data,
            recipe,
            loss_fn=loss_fn,
            after_step=sharing,
            checkpoints=checkpoints,
            progress=progress,
            title=title,
        ).model
    detach_codes_(shared, mantissa=mantissa)
    return shared.eval()


@dataclass(frozen=True)
class Allotted:
    """What one tensor was given.

    Attributes:
        living: its values that are not zero.
        values: how many different ones they become.
        bits: of all its codes and its codebook.
        loss_rise: by which the loss grows when this tensor alone is shared and nothing trained; estimated, where that
            was not to be confirmed.
    """

    living: int
    values: int
    bits: float
    loss_rise: float


def values_for_bits(
    model: nn.Module,
    bits: float,
    loss: Loss,
    *,
    ladder: Sequence[int] = LADDER,
    confirm: bool = True,
    progress: Progress | None = None,
) -> dict[str, Allotted]:
    """How many values each tensor gets, so that a living weight takes at most `bits` on average.

    Each tensor alone is shared with the ladder's lowest counts, and the loss measured; for the others it follows the
    squared error (see `Sensitivity`). Sensitive ones get more values: from the most of all, the tensor goes down a rung
    whose loss grows least for the bits that it saves, until the average is reached (the greedy allocation of Shoham and
    Gersho 1988). The loss at what each was given is measured too, and they are given anew. Codebooks count too.

    Args:
        loss: of a model, on images that are not for the final test.
        confirm: measure `Allotted.loss_rise` where it would only be estimated.

    Raises:
        UsageError: fewer bits than the lowest rung takes.
    """
    check_bits(model, bits, ladder)
    living = _living(model)
    costs = {name: [_bits(len(values), count) for count in ladder] for name, values in living.items()}
    weights = sum(map(len, living.values()))
    whole, done, total = loss(model), 0, len(living) * (len(PROBES) + 1 + confirm)
    measured: dict[str, dict[int, float]] = {name: {} for name in living}

    def measure(counts: Mapping[str, int]) -> None:
        nonlocal done
        for name, count in counts.items():
            if progress is not None:
                progress("sensitivity", done, total, name)
            done += 1
            if count not in measured[name]:
                measured[name][count] = loss(shared_alone(model, name, count)) - whole

    def allot() -> dict[str, int]:
        rises = {name: Sensitivity(living[name], measured[name]).on(ladder) for name in living}
        return {name: ladder[rung] for name, rung in _descend(rises, costs, bits * weights).items()}

    for rung in PROBES:
        measure(dict.fromkeys(living, ladder[min(rung, len(ladder) - 1)]))
    measure(allot())
    given = allot()
    if confirm:
        measure(given)
    return {
        name: Allotted(
            len(living[name]),
            count,
            costs[name][ladder.index(count)],
            measured[name].get(count, Sensitivity(living[name], measured[name]).on([count])[0]),
        )
        for name, count in given.items()
    }


def _descend(rises: Mapping[str, Sequence[float]], costs: Mapping[str, Sequence[float]], most: float) -> dict[str, int]:
    """Name -> rung: from the top of all, down where the loss rises least for the bits saved, until they are few enough.

    Args:
        rises, costs: of each rung.
        most: bits of all together, no less than those of the lowest rungs.
    """
    rungs = {name: len(cost) - 1 for name, cost in costs.items()}
    while sum(costs[name][rung] for name, rung in rungs.items()) > most:
        lower = [name for name, rung in rungs.items() if rung]
        name = min(lower, key=lambda name: _price(rises[name], costs[name], rungs[name]))
        rungs[name] -= 1
    return rungs


@dataclass(frozen=True)
class Sensitivity:
    """How the loss rises when one tensor is shared: like a power of the squared error between what was measured.

    Beyond, it is proportional to the error, as for small changes of a trained tensor on average (HAWQ-V2, Dong et al.
    2020, arXiv 1911.03852). A rise below nothing is chance.

    Attributes:
        values: (N,) the tensor's living ones.
        measured: count -> by how much the loss rose.
    """

    values: NDArray[np.float64]
    measured: Mapping[int, float]

    def on(self, ladder: Sequence[int]) -> list[float]:
        """Give the squared error for each count of the ladder."""
        errors = [squared_error(self.values, count) for count in ladder]
        known = sorted((squared_error(self.values, count), rise) for count, rise in self.measured.items() if rise > 0)
        known = [(error, rise) for error, rise in known if error > 0]
        if not known:
            return [error * NOTHING for error in errors]
        at, rises = np.log([error for error, _ in known]), np.log([rise for _, rise in known])
        return [math.exp(_follow(math.log(error), at, rises)) if error > 0 else 0.0 for error in errors]


def squared_error(values: NDArray[np.float64], count: int) -> float:
    """Give the squared error of all values together, when so many stand for them."""
    centroids, codes = kmeans(values, count)
    return float(np.square(values - centroids[codes]).sum())


def _follow(at: float, known: NDArray[np.float64], rises: NDArray[np.float64]) -> float:
    """Interpolate along straight lines between what is known, at slope 1 beyond."""
    inside = min(max(at, known[0]), known[-1])
    return float(np.interp(inside, known, rises) + at - inside)


def check_bits(model: nn.Module, bits: float, ladder: Sequence[int] = LADDER) -> None:
    """Refuse what the lowest rung for each tensor does not reach, by its shapes and zeros alone.

    Raises:
        UsageError: as `values_for_bits`.
    """
    living = _living(model)
    if not living:
        raise UsageError("no convolution or linear layer of the model has a weight that is not zero: nothing to share")
    counts = [len(values) for values in living.values()]
    least = sum(_bits(count, ladder[0]) for count in counts) / sum(counts)
    if not least <= bits < math.inf:
        raise UsageError(f"bits={bits:g} cannot be reached: {ladder[0]} values for each tensor take {least:.2f}")


def _living(model: nn.Module) -> dict[str, NDArray[np.float64]]:
    """The weights of each tensor that are not zero; tensors of zeros alone are left out."""
    living = {name: tensor[tensor != 0].detach().double().cpu().numpy() for name, tensor in shareable(model).items()}
    return {name: values for name, values in living.items() if len(values)}


def _bits(living: int, values: int) -> float:
    """Count the bits of a tensor's codes and codebook."""
    values = min(values, living)
    return living * math.log2(values) + values * VALUE_BITS


def _price(rises: Sequence[float], costs: Sequence[float], rung: int) -> float:
    """Loss for each bit that is saved by one rung down; a rung that saves nothing is left at once."""
    saved = costs[rung] - costs[rung - 1]
    return (rises[rung - 1] - rises[rung]) / saved if saved > 0 else -math.inf


@torch.no_grad()
def shared_alone(model: nn.Module, name: str, count: int) -> nn.Module:
    """A copy in which one tensor is shared and all others are as they were."""
    copied = copy.deepcopy(model)
    share_(copied, {name: count})
    detach_codes_(copied)
    return copied
