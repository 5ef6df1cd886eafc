"""Gradual sparsity: an `after_step` of the one training loop that makes ever more weights zero and holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from compress.sparse.masks import hold_, set_masks_
from compress.sparse.rank import Ranking, kept_count, over_network
from compress.sparse.scores import Criterion, Scores, lamp
from zoo.errors import UsageError


@dataclass(frozen=True)
class Cubic:
    """Density as a function of the step: fast while there is much to lose, slow at the end.

    Zhu and Gupta 2017 (https://arxiv.org/abs/1710.01878), eq. 1, with sparsity s = 1 - density:
    s_t = s_f + (s_i - s_f) (1 - t / T)^3.

    Attributes:
        start, end: densities before the first step and from step `steps` on.
        steps: T.
        every: steps between two cuts; the paper's delta t.
    """

    start: float
    end: float
    steps: int
    every: int = 16

    def __post_init__(self) -> None:
        check_density(self.start, self.end)

    def __call__(self, step: int) -> float | None:
        """The density to cut to after `step` steps; None where there is nothing to cut."""
        if step > self.steps or (step % self.every and step != self.steps):
            return None
        return self.end + (self.start - self.end) * (1 - step / self.steps) ** 3


def check_density(start: float, end: float) -> None:
    """Refuse a density that no cut gets to.

    Raises:
        UsageError: `end` is outside (0, 1] or above `start`.
    """
    kept_count(1, end)
    if not end <= start <= 1:
        raise UsageError(f"density cannot grow from {start} to {end}: weights that are zero stay zero")


@dataclass(frozen=True)
class Gradual:
    """Holds the model's masks after each step, and narrows them when the schedule says so.

    The model carries its masks (`attach_masks_`), so that a run that is resumed, or that goes back to a boundary, ends
    with the same bits.

    Attributes:
        schedule: steps done -> density, or None.
        prefer: scores -> scores, before the ranking; see compress/sparse/rate.py.
    """

    schedule: Callable[[int], float | None]
    criterion: Criterion = lamp
    ranking: Ranking = over_network
    prefer: Callable[[Scores], Scores] | None = None

    def __call__(self, model: nn.Module, step: int) -> None:
        hold_(model)
        density = self.schedule(step)
        if density is None:
            return
        scores = self.criterion(model)
        if self.prefer is not None:
            scores = self.prefer(scores)
        set_masks_(model, self.ranking(scores, density))
        hold_(model)
