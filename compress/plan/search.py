"""Which candidate to try next: a pure function of what was found so far, so that a search goes on wherever it stopped.

What costs nothing comes first: the fitted model as it is, and in int8. Then shares of the MACs are halved between those
that keep their accuracy and those that do not, as `find_depth` does: what is cut deeper is taken to lose more. With
budgets of costs the largest share that promises to meet them is tried, and smaller ones as long as it turns out to cost
more than promised; what promises nothing is never trained. Each share is tried in float and in int8, which
costs little more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from compress.plan.settings import Budgets
from compress.plan.trial import Candidate, Trial

SHARES = (0.8, 0.65, 0.5, 0.4, 0.3, 0.22, 0.15)  # of the MACs, the largest first
NEARLY = 0.9  # times a budget that a promise may be over it, and is tried still: promises are that far off

Costs = Mapping[str, float]  # of a candidate: latency_ms, size_bytes, macs


def next_candidate(
    trials: Sequence[Trial], budgets: Budgets, promised: Mapping[Candidate, Costs], shares: Sequence[float] = SHARES
) -> Candidate | None:
    """The next to try; None where nothing more could be better.

    Args:
        trials: in any order.
        promised: costs of candidates as they are known before training them; where one is missing, nothing is.
        shares: to choose from, the largest first.
    """
    tried = {trial.candidate: trial for trial in trials if trial.candidate is not None}
    for free in (Candidate(), Candidate(int8=True)):
        if free not in tried and (free == Candidate() or _promises(free, budgets, promised)):
            return free
        if budgets.costs and free in tried and tried[free].meets(budgets):
            return None  # what is whole loses least
    options = [share for share in shares if _any_promises(share, budgets, promised)]
    low, high = 0, len(options)  # all before `low` hold, none from `high` on
    while low < high:
        at = low if budgets.costs else (low + high) // 2
        share = options[at]
        candidates = [c for c in (Candidate(share), Candidate(share, int8=True)) if _wanted(c, budgets, promised)]
        if untried := next((c for c in candidates if c not in tried), None):
            return untried
        there = [tried[c] for c in candidates]
        if budgets.costs and any(trial.meets(budgets) for trial in there):
            return None
        if any(trial.kept is not None and trial.keeps(budgets) for trial in there):
            low = at + 1
        else:
            high = at
    return None


def _wanted(candidate: Candidate, budgets: Budgets, promised: Mapping[Candidate, Costs]) -> bool:
    """In float it is the way to int8, so that it is tried in any case."""
    return not candidate.int8 or _promises(candidate, budgets, promised)


def promises_any(budgets: Budgets, promised: Mapping[Candidate, Costs]) -> bool:
    """Whether any candidate may meet the budgets of costs."""
    return any(_promises(candidate, budgets, promised) for candidate in promised)


def _any_promises(share: float, budgets: Budgets, promised: Mapping[Candidate, Costs]) -> bool:
    return any(_promises(Candidate(share, int8), budgets, promised) for int8 in (False, True))


def _promises(candidate: Candidate, budgets: Budgets, promised: Mapping[Candidate, Costs]) -> bool:
    """Whether it may meet the budgets of costs."""
    known = promised.get(candidate, {})
    return all(known.get(name, 0.0) * NEARLY <= most for name, most in budgets.costs.items())


def least_promised(budgets: Budgets, promised: Mapping[Candidate, Costs]) -> tuple[Candidate, dict[str, float]] | None:
    """The candidate that is least over its worst budget, and by how many times over each; None without promises."""

    def over(candidate: Candidate) -> dict[str, float]:
        known = promised[candidate]
        return {name: known.get(name, 0.0) / most for name, most in budgets.costs.items()}

    if not promised or not budgets.costs:
        return None
    best = min(promised, key=lambda candidate: max(over(candidate).values(), default=math.inf))
    return best, over(best)
