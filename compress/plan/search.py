"""Which candidate to try next: a pure function of what was found so far, so that a search goes on wherever it stopped.

What costs nothing comes first: the fitted model as it is, in int8, and for smaller images. Then shares of the MACs are
halved between those that keep their accuracy and those that do not, as `find_depth` does: what is cut deeper is taken
to lose more. With budgets of costs the largest share that promises to meet them is tried, and smaller ones as long as
it turns out to cost more than promised; what promises nothing is never trained. Each share is tried in float and in
int8, which costs little more.

The same is done again with half and with all of the residual blocks left out, among the shares that promise to be
faster so than what was found before; with budgets of costs, where nothing has met them. EfficientNet-Lite0 on digits at
64 px, one seed, 99.4% and 0.31 ms whole: 99.2% and 4.9 times as fast with 8% of the MACs in all blocks, 98.9% and 7.8
times without nine of them.

Students that a person names are each taught then. Recoveries are short at first (successive halving, Jamieson and
Talwalkar 2016, arXiv 1502.07943): the first share that loses too much recovers longer, if it loses so little that this
may bring it back, the short one brought something and it promises to be faster than what holds, and smaller ones after
it, with all blocks and with fewer; and the one that would be chosen, if it loses anything, without budgets of costs
when they were timed beside each other. (Emoji, EfficientNet-Lite0 at 96 px, 1,144 images, one seed: 32 epochs instead
of 8 brought 0.5 to 2.6 points on the validation images, four cuts, and 2.9 and 3.2 on the test images of two.)

Several workers may ask: what others are at is taken to come out well until they have found otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.plan.settings import Budgets
from compress.plan.trial import BASE, Candidate, Trial, best_of

SHARES = (0.8, 0.65, 0.5, 0.4, 0.3, 0.22, 0.15, 0.1, 0.07, 0.05)  # of the MACs, the largest first
NEARLY = 0.9  # of what is promised has to be within a budget, or it is not tried: promises are that far off
ROUGHLY = 0.5  # the same of a cut's bytes before any was made: 1.64 MB were promised, and 0.77 came of it
SLOWER = 1.1  # times the latency in float, that int8 may promise, and is tried still
HOPEFUL = 3.0  # times the points that may be lost, from which a longer recovery may come back

Costs = Mapping[str, float]  # of a candidate: latency_ms, size_bytes, macs


def next_candidate(
    trials: Sequence[Trial],
    budgets: Budgets,
    promised: Mapping[Candidate, Costs],
    shares: Sequence[float] = SHARES,
    *,
    running: Collection[Candidate] = (),
    each: bool = False,
    students: Sequence[str] = (),
) -> Candidate | None:
    """The next to try; None where nothing more could be better.

    Args:
        trials: in any order.
        promised: costs of candidates as they are known before training them; where one is missing, nothing is.
        shares: to choose from, the largest first.
        running: what other workers are at.
        each: whether every share is tried, whatever is found.
        students: architectures that the fitted model may teach, each of which is tried.
    """
    tried = {trial.candidate: trial for trial in trials if trial.candidate is not None}
    if each:
        every = every_candidate(shares, students)
        return next((c for c in every if c not in tried and not _in_hand(c, running)), None)
    free = Candidate(int8=True)
    for candidate in (Candidate(), *([free] if _promises(free, budgets, promised) else [])):
        if candidate not in tried and candidate not in running:
            return candidate
        if budgets.costs and candidate in tried and tried[candidate].meets(budgets):
            return None  # what is whole loses least
    state = _State(tried, running, budgets, promised)
    if found := state.resized():
        return found
    if budgets.costs and any(c.resized and trial.meets(budgets) for c, trial in tried.items()):
        return None  # nothing was trained for it
    options = [share for share in shares if state.any_promises(share)]
    found, at = state.halved(options)
    for blocks in state.lengths[1:]:
        if found is None and not (budgets.costs and any(trial.meets(budgets) for trial in trials)):
            found, _ = state.halved(state.faster(shares, blocks), blocks)
    found = found or state.taught(students)
    if found is not None or running:
        return found
    for blocks in state.lengths if budgets.costs else reversed(state.lengths):  # the fastest spares others
        if found is None and not (budgets.costs and any(trial.meets(budgets) for trial in trials)):
            plain = options if budgets.costs else options[at:]
            found = state.longer([s for s in shares if state.any_promises(s, blocks)] if blocks else plain, blocks)
    return found or state.surer()


def every_candidate(shares: Sequence[float], students: Sequence[str]) -> list[Candidate]:
    """All that there are with a short recovery, the fitted model first."""
    plain = [Candidate(share) for share in (None, *shares)] + [Candidate(student=name) for name in students]
    return [replace(candidate, int8=int8) for candidate in plain for int8 in (False, True)]


@dataclass(frozen=True)
class _State:
    """What a search knows.

    Attributes:
        tried: by what it is of.
        running: what other workers are at.
    """

    tried: Mapping[Candidate, Trial]
    running: Collection[Candidate]
    budgets: Budgets
    promised: Mapping[Candidate, Costs]

    @property
    def lengths(self) -> list[int]:
        """How many blocks may be left out: none, and then more."""
        return sorted({0, *(c.blocks for c in self.promised)})

    def resized(self) -> Candidate | None:
        """The next for smaller images: of the largest that may meet the budgets, and then of smaller ones, until one
        loses too much or, with budgets of costs, meets them."""
        for in_float in sorted((c for c in self.promised if c.resized and not c.int8), key=lambda c: -(c.share or 1.0)):
            candidates = self._wanted(in_float)
            if not any(map(self._may_meet, candidates)):
                continue
            if untried := next((c for c in candidates if c not in self.tried and not self._in_hand(c)), None):
                return untried
            there = [self.tried[c] for c in candidates if c in self.tried]
            if there and (not any(map(self._holds, there)) or any(self._meets(trial) for trial in there)):
                return None
        return None

    def halved(self, options: Sequence[float], blocks: int = 0) -> tuple[Candidate | None, int]:
        """The next of the short recoveries, and how many options hold: with fewer blocks perhaps as many as before."""
        low, high = self._known(options, blocks)  # all before `low` hold, none from `high` on
        least = min((c.share or 1.0 for c in self._held_with_more(blocks)), default=1.0)
        guess = next((at for at, share in enumerate(options) if share <= least), -1) if blocks else -1
        while low < high:
            at = guess if low <= guess < high else (low + high) // 2
            at = low if self.budgets.costs else at
            candidates = self._wanted(Candidate(options[at], blocks=blocks))
            if any(self._in_hand(candidate) for candidate in candidates):
                low = at + 1
                continue
            if untried := next((c for c in candidates if c not in self.tried), None):
                return untried, low
            there = [self.tried[c] for c in candidates]
            if self.budgets.costs and any(trial.meets(self.budgets) for trial in there):
                return None, low
            if any(map(self._holds, there)):
                low = at + 1
            else:
                high = at
        return None, low

    def _known(self, options: Sequence[float], blocks: int) -> tuple[int, int]:
        """How many of the first hold and from which on none does, by the short recoveries with as many blocks; options
        are others by the time that something faster holds."""
        if self.budgets.costs:
            return 0, len(options)  # one after the other, until one meets them
        done = [c for c in self.tried if c.share is not None and c == Candidate(c.share, blocks=blocks)]
        every = {c.share or 1.0: [self.tried.get(each) for each in self._wanted(c)] for c in done}
        holds = {share: any(t is not None and self._holds(t) for t in there) for share, there in every.items()}
        failed = max((share for share, there in every.items() if None not in there and not holds[share]), default=0.0)
        held = min((share for share in every if holds[share] and None not in every[share]), default=1.0)
        return sum(share >= held for share in options), sum(share > failed for share in options)

    def faster(self, shares: Sequence[float], blocks: int) -> list[float]:
        """Those with which, without so many blocks, a budget of costs may be met; where there is none, those that
        promise to be faster than all that hold with more blocks."""
        if self.budgets.costs:
            return [share for share in shares if self.any_promises(share, blocks)]
        held = self._held_with_more(blocks)
        least = min((self._promised_ms(c.plain) for c in held), default=math.inf)
        return [share for share in shares if self._fastest_ms(share, blocks) < least]

    def _held_with_more(self, blocks: int) -> list[Candidate]:
        """What holds, or others are at, of which fewer blocks are left out."""
        before = [c for c in (*self.tried, *self.running) if c.blocks < blocks and c.student is None]
        return [c for c in before if c not in self.tried or self._holds(self.tried[c])]

    def taught(self, students: Sequence[str]) -> Candidate | None:
        """The next student that may meet the budgets, in float, which is the way to int8, and in int8."""
        for name in students:
            small = Candidate(student=name, int8=True)
            for candidate in (replace(small, int8=False), small):
                untried = candidate not in self.tried and not self._in_hand(candidate)
                if untried and any(map(self._may_meet, {candidate, small})):  # float is the way to int8
                    return candidate
        return None

    def longer(self, options: Sequence[float], blocks: int) -> Candidate | None:
        """The next that recovers longer: the first share that loses too much and not much more, and then smaller ones,
        as long as they lose little enough; with budgets of costs until one meets them, without of those that promise to
        be faster than all else that holds."""
        others = [c for c, trial in self.tried.items() if self._holds(trial) and not (c.longer and c.blocks == blocks)]
        times = [] if self.budgets.costs else [self._promised_ms(c.plain) for c in others]
        least, near = min(times, default=math.inf), HOPEFUL * max(self.budgets.max_drop, 1.0)
        came_back = False
        for share in options:
            short = [self.tried[c] for c in self._wanted(Candidate(share, blocks=blocks)) if c in self.tried]
            if any(map(self._holds, short)):
                continue  # and costs too much
            hopeful = [trial for trial in short if trial.recovered and trial.lost is not None and trial.lost <= near]
            if short and not hopeful:
                return None
            candidates = self._wanted(Candidate(share, longer=True, blocks=blocks))
            untried = next((c for c in candidates if c not in self.tried), None)
            if untried is not None and math.inf > least <= self._fastest_ms(share, blocks):
                continue  # and brings nothing
            if not short and not came_back:
                continue  # larger than what was tried
            if untried is not None:
                return untried
            there = [self.tried[c] for c in candidates]
            came_back = any(map(self._holds, there))
            if not came_back or (self.budgets.costs and any(trial.meets(self.budgets) for trial in there)):
                return None
        return None

    def surer(self) -> Candidate | None:
        """The one that would be chosen, with a longer recovery, if it loses anything; without budgets of costs not
        before it was timed beside others, since promises do not tell which is the fastest of those that are alike."""
        held = [trial for trial in self.tried.values() if self._holds(trial)]
        if not self.budgets.costs and not any(trial.latencies for trial in held if trial.name != BASE):
            return None
        chosen = best_of(held, self.budgets)
        if chosen is None or chosen.candidate is None or chosen.candidate.share is None or not chosen.recovered:
            return None
        if chosen.candidate.resized:
            return None
        longer = replace(chosen.candidate, longer=True)
        both = [replace(longer, int8=False), longer]  # the way to int8 is one of its own
        surer = {replace(c, int8=False) for c in self.tried if c.longer and self._held_before(c)}
        others = surer - {both[0]}  # where a machine wanders, another is the fastest each time
        if others or (chosen.lost or 0.0) <= 0:
            return None
        return next((c for c in both if c not in self.tried), None)

    def _held_before(self, longer: Candidate) -> bool:
        """Whether it lost little enough with a short recovery."""
        short = [replace(longer, longer=False, int8=int8) for int8 in (False, True)]
        return any(self._holds(self.tried[c]) for c in short if c in self.tried)

    def any_promises(self, share: float, blocks: int = 0) -> bool:
        """Whether that cut may meet the budgets, in float or in int8; without blocks, if that is known at all."""
        either = [Candidate(share, int8, blocks=blocks) for int8 in (False, True)]
        return any(self._may_meet(c) for c in either if not blocks or c in self.promised)

    def _may_meet(self, candidate: Candidate) -> bool:
        """Whether it promises to meet the budgets of costs."""
        cut = any(c.is_cut and trial.kept is not None for c, trial in self.tried.items())
        return _promises(candidate, self.budgets, self.promised, nearly=NEARLY if cut else ROUGHLY)

    def _meets(self, trial: Trial) -> bool:
        return bool(self.budgets.costs) and trial.meets(self.budgets)

    def _holds(self, trial: Trial) -> bool:
        return trial.kept is not None and trial.keeps(self.budgets)

    def _wanted(self, in_float: Candidate) -> list[Candidate]:
        """That one, which is the way to int8, and in int8 where that may meet the budgets; without blocks, which go for
        speed, where it promises to be no slower."""
        int8 = replace(in_float, int8=True)
        before, after = (self._promised_ms(c.plain) for c in (in_float, int8))
        may = self._may_meet(int8.plain)
        may &= bool(self.budgets.costs) or not int8.blocks or math.isinf(before) or after <= SLOWER * before
        return [in_float, *([int8] if may else [])]

    def _in_hand(self, candidate: Candidate) -> bool:
        return _in_hand(candidate, self.running)

    def _promised_ms(self, candidate: Candidate) -> float:
        return self.promised.get(candidate, {}).get("latency_ms", math.inf)

    def _fastest_ms(self, share: float, blocks: int) -> float:
        """Of that cut in float or in int8; infinite where nothing is known of it."""
        return min(self._promised_ms(Candidate(share, int8, blocks=blocks)) for int8 in (False, True))


def _in_hand(candidate: Candidate, running: Collection[Candidate]) -> bool:
    """Whether somebody is at it, or, of int8, at what it begins with."""
    return candidate in running or replace(candidate, int8=False) in running


def promises_any(budgets: Budgets, promised: Mapping[Candidate, Costs]) -> bool:
    """Whether any candidate may meet the budgets of costs."""
    return any(_promises(candidate, budgets, promised) for candidate in promised)


def _promises(
    candidate: Candidate, budgets: Budgets, promised: Mapping[Candidate, Costs], *, nearly: float = ROUGHLY
) -> bool:
    """Whether it may meet the budgets of costs.

    Args:
        nearly: which part of the bytes that are promised of a cut has to be within the budget.
    """
    known, parts = promised.get(candidate, {}), {"size_bytes": nearly} if candidate.is_cut else {}
    return all(known.get(name, 0.0) * parts.get(name, NEARLY) <= most for name, most in budgets.costs.items())


def least_promised(budgets: Budgets, promised: Mapping[Candidate, Costs]) -> tuple[Candidate, dict[str, float]] | None:
    """The candidate that is least over its worst budget, and by how many times over each; None without promises."""

    def over(candidate: Candidate) -> dict[str, float]:
        known = promised[candidate]
        return {name: known.get(name, 0.0) / most for name, most in budgets.costs.items()}

    if not promised or not budgets.costs:
        return None
    best = min(promised, key=lambda candidate: max(over(candidate).values(), default=math.inf))
    return best, over(best)
