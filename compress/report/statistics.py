"""How sure a difference in latency is. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 10_000
# A quantile's 99%-confidence bound is the largest of n samples at best, which needs 1 - q^n >= 0.99 with q^n the chance
# that all lie below it: n >= 44 for p90 and 459 for p99. One exceedance is allowed for, as MLPerf's LoadGen does
# (its min_query_count for p99 is 662).
SAMPLES_FOR_P90, SAMPLES_FOR_P99 = 64, 662

Verdict = Literal["faster", "slower", "tie"]


@dataclass(frozen=True)
class Ratio:
    """A speed-up: 2.0 is twice as fast. `lo` and `hi` are its 95% interval."""

    median: float
    lo: float
    hi: float

    @property
    def floor_pct(self) -> float:
        """The largest difference between two copies of one model, in percent: what this machine makes of nothing."""
        return 100 * (math.exp(max(abs(math.log(self.lo)), abs(math.log(self.hi)))) - 1)

    def verdict(self, floor_pct: float) -> Verdict:
        """A tie where the interval holds 1, or where the difference is within what the machine makes out of nothing."""
        if self.lo <= 1 <= self.hi or abs(math.log(self.median)) <= math.log1p(floor_pct / 100):
            return "tie"
        return "faster" if self.median > 1 else "slower"


def ratio_interval(a_rounds: ArrayLike, b_rounds: ArrayLike, *, seed: int = 0) -> Ratio:
    """The speed-up of b over a, time of a / time of b: the median of the rounds' ratios and its bootstrap 95% interval.

    Rounds are pairs: a and b were measured one right after the other, so that what slows the machine for seconds (a
    neighbour, a clock) slows both and leaves their ratio alone.

    Args:
        a_rounds, b_rounds: (rounds,) times in any one unit.
    """
    a, b = np.asarray(a_rounds, dtype=float), np.asarray(b_rounds, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        raise ValueError(f"rounds of shapes {a.shape} and {b.shape}: wanted (rounds,) twice, measured in pairs")
    if not (a > 0).all() or not (b > 0).all():
        raise ValueError("a round of no duration: times must be positive")
    ratios = a / b
    drawn = np.random.default_rng(seed).integers(a.size, size=(RESAMPLES, a.size))
    lo, hi = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(lo), float(hi))
