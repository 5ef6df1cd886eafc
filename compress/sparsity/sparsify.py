"""Make most weights zero, gradually, and train the rest: the model comes back with its zeros in place."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from compress.recovery.masks import (
    attach_masks_,
    check_zeros,
    density,
    detach_masks_,
    hold_,
    hold_zeros,
    nonzeros,
    set_masks_,
)
from compress.sparsity.gradual import Cubic, Gradual, check_density
from compress.sparsity.rank import Ranking, kept_count, n_of_m, over_network
from compress.sparsity.rate import PerBit
from compress.sparsity.scores import Criterion, WeightScores, lamp, magnitude
from transfer.training.finetune import AfterStep, TrainingData, finetune
from transfer.training.recipe import Recipe
from transfer.training.step import LossFn
from zoo.errors import UsageError
from zoo.progress import Progress

CUTTING = 0.7  # share of the steps in which weights go; in the rest the others recover


@dataclass(frozen=True, kw_only=True)
class Unstructured:
    """Any weight may go.

    Attributes:
        density: share of the weights of convolutions and linear layers that stay.
        criterion: what a weight is worth; by default LAMP, whose scores can be compared across layers.
        ranking: over the network, or by layer.
        bit_power: above 0, weights that are dear to code go sooner; see `PerBit`.
        every: steps between two cuts.
        free: steps before each cut in which what was cut may come back; see `Gradual`.
    """

    density: float
    criterion: Criterion = lamp
    ranking: Ranking = over_network
    bit_power: float = 1.0
    every: int = 32
    free: int = 16

    @property
    def prefer(self) -> PerBit | None:
        return PerBit(self.bit_power) if self.bit_power else None


@dataclass(frozen=True, kw_only=True)
class NOfM:
    """n of every m weights along the inputs stay; 2 of 4 by default. Cut at once, by magnitude, as Mishra et al. do."""

    n: int = 2
    m: int = 4


Pattern = Unstructured | NOfM


def sparsify_weights(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    pattern: Pattern,
    *,
    loss_fn: LossFn | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    title: str = "sparsifying",
) -> nn.Module:
    """A trained copy of `model` with the zeros that the pattern wants, and all that were there before.

    Raises:
        UsageError: a density outside (0, 1] or above the present one; no epochs; no layer that the pattern fits.
        SlimzooError: zeros were lost (a recipe with a moving average).
        see `finetune`.
    """
    check_epochs(recipe.epochs)
    sparse = copy.deepcopy(model)
    attach_masks_(sparse)
    after_step: AfterStep = hold_zeros
    if isinstance(pattern, NOfM):
        set_masks_(sparse, cut_at_once(sparse, pattern)[1])
        hold_(sparse)
    else:
        steps = recipe.steps(len(data.train))
        cutting = max(1, round(CUTTING * steps))
        schedule = Cubic(density(sparse), pattern.density, cutting, min(pattern.every, cutting))
        may_live = {name: flags for name, flags in nonzeros(model).items() if not flags.all()}
        after_step = Gradual(schedule, pattern.criterion, pattern.ranking, pattern.prefer, pattern.free, may_live)
    trained = finetune(
        sparse,
        data,
        recipe,
        loss_fn=loss_fn,
        after_step=after_step,
        checkpoints=checkpoints,
        progress=progress,
        title=title,
    ).model
    detach_masks_(trained)
    check_zeros(trained, nonzeros(model))
    return trained


def check_epochs(epochs: int) -> None:
    """Raises:
    UsageError: none, in which no weight becomes zero.
    """
    if epochs < 1:
        raise UsageError(f"epochs={epochs}: weights become zero while the others are trained; wanted at least 1 epoch")


def check_reachable(model: nn.Module, pattern: Pattern) -> None:
    """Refuse a pattern that the model's shapes and zeros rule out, before an image is read.

    Raises:
        UsageError: as `cut_at_once`.
    """
    if isinstance(pattern, NOfM):
        cut_at_once(model, pattern)
    else:
        now, weights = density(model), sum(flags.numel() for flags in nonzeros(model).values())
        check_density(now, pattern.density)
        if pattern.density != 1 and kept_count(weights, pattern.density) >= round(now * weights):
            raise UsageError(f"density={pattern.density} makes no weight zero: the model's is {now:.4g}; ask for less")


def cut_at_once(model: nn.Module, pattern: Pattern) -> tuple[WeightScores, dict[str, Tensor]]:
    """Each weight's score, and the masks of a cut that is neither gradual nor trained.

    Raises:
        UsageError: a density outside (0, 1] or above the present one; no layer that the pattern fits.
    """
    if isinstance(pattern, NOfM):
        scores = magnitude(model)
        masks = n_of_m(scores, pattern.n, pattern.m)
        if all(mask.all() for mask in masks.values()):
            why = "it keeps all" if pattern.n == pattern.m else f"no layer has inputs that {pattern.m} divides"
            raise UsageError(
                f"{pattern.n}:{pattern.m} would change nothing: {why}; 2:4 keeps two of every four weights"
            )
        return scores, masks
    check_density(density(model), pattern.density)
    scores = pattern.criterion(model)
    prefer = pattern.prefer
    return scores, pattern.ranking(scores if prefer is None else prefer(scores, nonzeros(model)), pattern.density)
