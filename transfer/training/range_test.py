"""The learning-rate range test: train while the rate grows, and see where the loss falls and where it explodes.

Smith 2015 (https://arxiv.org/abs/1506.01186, sec. 3.3). The range, the smoothing, the stop and the choice of the
suggestion are those that fastai's `lr_find` made usual.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from transfer.device import training_device
from transfer.training.batch import Batches, TrainingData
from transfer.training.optim import build_optimizer, set_rates_
from transfer.training.recipe import Recipe
from transfer.training.step import NonFinite, Stepper
from transfer.training.trial import on_a_copy
from zoo.classifier import classifier
from zoo.progress import Progress

LOWEST, HIGHEST = 1e-7, 10.0  # fastai
STOP_AT = 4.0  # times the best smoothed loss; fastai
SMOOTHING = 0.98  # decay of the loss's moving average, corrected for its start as Adam's moments are; fastai
FEWEST_STEPS = 20  # to see a loss fall
LEAST_FALL = 1e-3  # a loss that falls by less over the whole stretch falls nowhere
SKIP_FIRST, SKIP_LAST = 0.1, 5  # a share of the planned steps, and steps, that no suggestion is made of; fastai


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw.

    Attributes:
        rates: of each step that was taken, growing by a constant factor.
        losses: of each step, before it.
        smoothed: the moving average of the losses.
        suggestion: the middle, on a logarithmic scale, of the longest stretch in which the smoothed loss falls, which
            is fastai's "valley"; None where it falls nowhere.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None


def range_test(
    model: nn.Module, data: TrainingData, recipe: Recipe, *, steps: int = 100, progress: Progress | None = None
) -> RangeTest:
    """Try rates from 1e-7 to 10 on a copy of the model; the model is left alone.

    The rate is the classifier's, `recipe.lr`; the other stages keep their ratio to it. Everything else, from the order
    of the images to the clipping of gradients, is as the recipe says. Stops early when the loss explodes.

    Args:
        steps: of the whole range.
    """
    with on_a_copy(model, recipe) as tried:
        optimizer = build_optimizer(tried, recipe)
        stepper = Stepper(tried, optimizer, recipe)
        stepper.set_mode_()
        batches = Batches(data, recipe, classifier(tried).weight.shape[0], training_device())
        taken = 0

        def take_step(rate: float) -> float:
            nonlocal taken
            set_rates_(optimizer, rate / recipe.lr)
            try:
                loss, _ = stepper.step(batches(taken), taken)
            except NonFinite:
                return math.nan
            taken += 1
            if progress is not None:
                progress("range test", taken, steps, f"rate {rate:.1e}  loss {loss:.3f}")
            return loss

        return sweep(take_step, steps=steps)


def sweep(take_step: Callable[[float], float], *, steps: int) -> RangeTest:
    """Call `take_step`, which trains one step at a rate and returns the loss before it, while the rate grows.

    Raises:
        ValueError: fewer than 20 steps.
    """
    if steps < FEWEST_STEPS:
        raise ValueError(f"steps={steps}: at least {FEWEST_STEPS} are needed to see a loss fall")
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for step in range(steps):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1))
        loss = take_step(rate)
        if not math.isfinite(loss):
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(loss)
        smoothed.append(average / (1 - SMOOTHING ** (step + 1)))
        if smoothed[-1] > STOP_AT * min(smoothed):
            break
    first, last = int(SKIP_FIRST * steps), max(0, len(smoothed) - SKIP_LAST)
    found, suggestion = longest_fall(smoothed[first:last]), None
    if found is not None and smoothed[first + found[1]] < (1 - LEAST_FALL) * smoothed[first + found[0]]:
        suggestion = math.sqrt(rates[first + found[0]] * rates[first + found[1]])
    return RangeTest(tuple(rates), tuple(losses), tuple(smoothed), suggestion)


def longest_fall(values: Sequence[float]) -> tuple[int, int] | None:
    """First and last position of the longest strictly falling subsequence (Schensted 1961); None if nothing falls."""
    tails: list[float] = []  # of the falling subsequences of each length, the highest last value, negated
    ends: list[int] = []  # and its position
    before: list[int] = []  # of each position, the one before it in its subsequence
    for position, value in enumerate(values):
        length = bisect.bisect_left(tails, -value)
        before.append(ends[length - 1] if length else -1)
        if length == len(tails):
            tails.append(-value)
            ends.append(position)
        else:
            tails[length], ends[length] = -value, position
    if len(ends) < 2:
        return None
    first = ends[-1]
    while before[first] >= 0:
        first = before[first]
    return first, ends[-1]


def save_range(found: RangeTest, path: Path) -> None:
    """A picture of the losses over the rates, with the suggestion."""
    import altair as alt

    from transfer.evaluation.plots import save_png

    values = [
        {"rate": rate, "loss": loss, "smoothed": smooth}
        for rate, loss, smooth in zip(found.rates, found.losses, found.smoothed, strict=True)
    ]
    base = alt.Chart(alt.InlineData(values)).encode(
        x=alt.X("rate:Q", title="peak rate of the classifier", scale=alt.Scale(type="log"), axis=alt.Axis(format="e"))
    )
    shown = alt.Scale(domain=[0, 2 * found.smoothed[0]])  # the explosion is cut off, or it would be all there is
    points = base.mark_point(size=12, color="#9aa3ab", clip=True).encode(
        y=alt.Y("loss:Q", title="loss before the step", scale=shown)
    )
    chart = points + base.mark_line(clip=True).encode(y="smoothed:Q")
    title = "Range test: the loss falls nowhere"
    if found.suggestion is not None:
        title = f"Range test: suggested rate {found.suggestion:.1e}"
        mark = alt.Chart(alt.InlineData([{"rate": found.suggestion}])).mark_rule(color="#d95f02", strokeDash=[4, 3])
        chart = chart + mark.encode(x="rate:Q")
    save_png(chart.properties(width=420, height=260, title=title), path)
