"""How sure a difference in latency is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE, RESAMPLES = 0.95, 4000
# A quantile's 99%-confidence bound is the largest of n samples at best, which needs 1 - q^n >= 0.99 with q^n the chance
# that all lie below it: n >= 44 for p90 and 459 for p99. One exceedance is allowed for, as MLPerf's LoadGen does
# (its min_query_count for p99 is 662).
SAMPLES_FOR_P90, SAMPLES_FOR_P99 = 64, 662

DISTURBED = 0.05  # of the processors' time: a round of which other work took more counts for nothing
LEAST_ROUNDS = 8  # undisturbed ones, or as many as were asked for: all on one side of the truth 1 time in 128
LEAST_LAUNCHES = 3  # with undisturbed rounds in them, of several

Verdict = Literal["faster", "slower", "tie", "too busy to say"]


@dataclass(frozen=True)
class Ratio:
    """A speed-up: 2.0 is twice as fast. `lo` and `hi` are its 95% interval."""

    value: float
    lo: float
    hi: float

    @property
    def floor_pct(self) -> float:
        """The largest difference between two copies of one model, in percent: what this machine makes of nothing."""
        return 100 * (math.exp(max(abs(math.log(self.lo)), abs(math.log(self.hi)))) - 1)

    def verdict(self, floor_pct: float) -> Verdict:
        """A tie where the interval holds 1, or where the difference is within what the machine makes out of nothing."""
        if self.lo <= 1 <= self.hi or abs(math.log(self.value)) <= math.log1p(floor_pct / 100):
            return "tie"
        return "faster" if self.value > 1 else "slower"


@dataclass(frozen=True)
class TooBusy:
    """A speed-up that cannot be said, because other work disturbed the rounds; what was seen lies in `lo` to `hi`."""

    disturbed: float  # the share of the rounds
    lo: float
    hi: float

    def __str__(self) -> str:
        return (
            f"too busy to say: {self.disturbed:.0%} of the rounds were disturbed, which said "
            f"{self.lo:.2f} to {self.hi:.2f} times"
        )


def verdict_of(found: Ratio | TooBusy | None, floor_pct: float | None) -> Verdict | None:
    """What is said of a speed-up; nothing where none was found, or where the machine's noise is not known.

    Args:
        floor_pct: of the noise, see `Ratio.floor_pct`.
    """
    if isinstance(found, TooBusy):
        return "too busy to say"
    return None if found is None or floor_pct is None else found.verdict(floor_pct)


def undisturbed(*taken: Sequence[float]) -> list[int]:
    """The rounds in which none was disturbed.

    Args:
        taken: of each, (rounds,) the shares of the processors' time that other work took.
    """
    return [number for number, shares in enumerate(zip(*taken, strict=True)) if max(shares) <= DISTURBED]


def enough(clean: Sequence[int], asked: int) -> bool:
    """Whether so many undisturbed rounds of those asked for say anything."""
    return len(clean) >= min(LEAST_ROUNDS, asked)


def speed_up(old: Mapping[str, Any], new: Mapping[str, Any], asked: int) -> Ratio | TooBusy | None:
    """The speed-up of a benchmark's row over another one by their undisturbed rounds; None where they are no pairs.

    Args:
        old, new: of each, `rounds_ms`, and (absent in older benchmarks) `taken`, see `undisturbed`, and `launches`, of
            each round the number of its process.
        asked: rounds that the benchmark was to have.
    """
    a, b = np.asarray(old["rounds_ms"], dtype=float), np.asarray(new["rounds_ms"], dtype=float)
    if len(a) != len(b) or len(a) == 0:
        return None
    clean = undisturbed(*(row.get("taken") or [0.0] * len(a) for row in (old, new)))
    ratios = a / b
    launches = np.asarray(new.get("launches") or np.zeros(len(a), dtype=int))
    left = np.unique(launches[clean])
    if not enough(clean, asked) or len(left) < min(LEAST_LAUNCHES, len(np.unique(launches))):
        return TooBusy(1 - len(clean) / len(a), float(ratios.min()), float(ratios.max()))
    found = [np.exp(np.log(ratios[clean][launches[clean] == one]).mean()) for one in left]
    return ratio_interval(found if len(found) > 1 else ratios[clean])


def median_interval(rounds_ms: Sequence[float], launches: Sequence[int]) -> tuple[float, float] | None:
    """The 95% interval of a median latency, by the bootstrap over processes (Efron and Tibshirani 1993, chapter 13).

    Args:
        rounds_ms: medians of rounds.
        launches: of each, the number of its process; rounds of one are no new evidence. None is said of one process.
    """
    ms, of = np.asarray(rounds_ms, dtype=float), np.asarray(launches)
    medians = np.array([np.median(ms[of == launch]) for launch in np.unique(of)])
    if len(medians) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(medians), size=(RESAMPLES, len(medians)))
    lo, hi = np.quantile(np.median(medians[drawn], axis=1), ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(lo), float(hi)


def ratio_interval(ratios: ArrayLike) -> Ratio:
    """The geometric mean of ratios measured independently, with its 95% interval by Student's t of their logarithms.

    Args:
        ratios: (n,) times of a over times of b. Those of a pair were measured one right after the other, so that what
            slows the machine for seconds (a neighbour, a clock) slows both and leaves their ratio alone. Of one ratio
            nothing can be said: its interval is everything.
    """
    from scipy.special import stdtrit  # here, for what times a network imports this file and not SciPy

    found = np.asarray(ratios, dtype=float)
    if found.ndim != 1 or found.size == 0 or not (found > 0).all():
        raise ValueError(f"ratios {found}: wanted some, greater than 0")
    logs = np.log(found)
    middle = float(logs.mean())
    if found.size == 1:
        return Ratio(math.exp(middle), 0.0, math.inf)
    half = float(stdtrit(found.size - 1, 0.5 + CONFIDENCE / 2) * logs.std(ddof=1) / math.sqrt(found.size))
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))
