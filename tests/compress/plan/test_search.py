"""The search against made-up worlds in which the best candidate is known."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from compress.plan.pipeline import Kept
from compress.plan.promises import as_small
from compress.plan.search import NEARLY, ROUGHLY, SHARES, least_promised, next_candidate, promises_any
from compress.plan.settings import Budgets
from compress.plan.trial import ALIKE, BASE, HEADER, WIDTHS, Candidate, Trial, best_of, nearest_of
from transfer.evaluation.statistics import PairedDrop

METRICS = ("top1", "balanced")
RESIZED = [Candidate(s, int8, side=round(96 * s), resized=True) for s in (0.5, 0.8) for int8 in (False, True)]
EVERY = [Candidate(share, int8) for share in (None, *SHARES) for int8 in (False, True)]


class World:
    """Candidates cost what is promised times a random factor, and lose `slope` points for each halving of the MACs.

    A longer recovery leaves `back` of the loss. Without `blocks` of its residual blocks a network of some share is as
    much faster as it has fewer of its ten operators, and loses `missed` points more for each. In int8 it loses `int8`.
    For smaller images, of a share, it loses `smaller` points for each halving of the MACs.
    """

    recovers = True

    def __init__(self, seed, slope, off=0.05, back=1.0, blocks=(), missed=0.0, int8=0.1, smaller=None):
        rng = random.Random(seed)
        self.points, self.costs, self.promised = {}, {}, {}
        shorter = [replace(each, blocks=less) for less in blocks for each in EVERY if each.share]
        for candidate in [*EVERY, *shorter, *(RESIZED if smaller is not None else [])]:
            share = candidate.share or 1.0
            costs = {"macs": 1e8 * share, "size_bytes": 1e7 * share / (4 if candidate.int8 else 1)}
            if candidate.resized:  # which has all of its weights
                costs["size_bytes"] /= share
            costs["latency_ms"] = 10 * share**0.7 / (2 if candidate.int8 else 1) * (1 - candidate.blocks / 10)
            self.promised[candidate] = costs
            self.costs[candidate] = {name: value * rng.uniform(1 - off, 1 + off) for name, value in costs.items()}
            self.points[candidate] = slope * (1 / share - 1) + int8 * candidate.int8 + missed * candidate.blocks
            if candidate.resized:
                self.points[candidate] = (smaller or 0.0) * (1 / share - 1) + int8 * candidate.int8
            longer = replace(candidate, longer=True)
            self.points[longer], self.costs[longer] = back * self.points[candidate], self.costs[candidate]

    def trial(self, candidate):
        drop = PairedDrop(self.points[candidate], (-1.0, 5.0), 1.0, 200, 10)
        costs = dict(self.costs[candidate])
        latency_ms = costs.pop("latency_ms")
        kept = Kept(Path(candidate.name), "", 1.0, False)
        latencies = {"onnxruntime": latency_ms}
        return Trial(candidate.name, candidate, None, kept, costs, drop, latencies=latencies, recovered=self.recovers)

    def searched(self, budgets):
        trials = []
        while (candidate := next_candidate(trials, budgets, self.promised)) is not None:
            assert candidate not in {trial.candidate for trial in trials}
            trials.append(self.trial(candidate))
        return trials


@pytest.mark.parametrize(("seed", "slope"), list(itertools.product(range(4), [0.02, 0.2, 0.5, 2, 20])))
def test_without_budgets_of_costs_the_fastest_that_loses_little_is_found(seed, slope):
    world, budgets = World(seed, slope), Budgets(1.0)
    trials = world.searched(budgets)
    meeting = [world.trial(candidate) for candidate in EVERY if world.points[candidate] <= 1]
    deepest = max((c.candidate.share is not None, -(c.candidate.share or 0)) for c in meeting)
    found = best_of(trials, budgets)
    assert found is not None
    assert (found.candidate.share is not None, -(found.candidate.share or 0)) == deepest
    assert found.candidate.int8
    assert (
        len(trials) <= 2 + 2 * 4 + 2 + 2
    )  # ten shares are halved four times; two recover longer in vain, two as chosen


@pytest.mark.parametrize(
    ("seed", "slope", "costs"),
    list(
        itertools.product(
            range(4),
            [0.02, 0.3],
            [
                {"latency_ms": 20},
                {"latency_ms": 4},
                {"latency_ms": 2.5},
                {"size_bytes": 2e6},
                {"macs": 3e7},
                {"latency_ms": 3, "size_bytes": 1e6},
            ],
        )
    ),
)
def test_with_budgets_of_costs_the_least_compressed_that_meets_them_is_found(seed, slope, costs):
    world, budgets = World(seed, slope), Budgets(1.0, **costs)
    trials = world.searched(budgets)
    meeting = [trial for candidate in EVERY if (trial := world.trial(candidate)).meets(budgets)]
    best, found = best_of(meeting, budgets), best_of(trials, budgets)
    assert (found is None) == (best is None)
    if best is not None and found is not None:
        assert (found.candidate.share or 1) == (best.candidate.share or 1)
    else:
        assert nearest_of(trials, budgets) is not None
    first = next((trial.candidate.share for trial in trials if trial.candidate.is_cut), None)
    for trial in trials[1:]:  # what has no chance is not trained, but on the way to int8
        same = [Candidate(trial.candidate.share, int8) for int8 in (False, True)]
        nearly = {"size_bytes": ROUGHLY if trial.candidate.share == first else NEARLY}  # before any cut was made
        within = [
            [world.promised[c][name] * nearly.get(name, NEARLY) <= most for name, most in budgets.costs.items()]
            for c in same
        ]
        assert any(map(all, within))


@pytest.mark.parametrize(
    ("smaller", "tried"),
    [
        (0.2, ["resized-77", "resized-77-int8", "resized-48", "resized-48-int8"]),
        (9.0, ["resized-77", "resized-77-int8"]),  # the smallest loses more still
    ],
)
def test_smaller_images_are_tried_before_anything_is_trained(smaller, tried):
    trials = World(0, slope=0.3, smaller=smaller).searched(Budgets(max_drop=1))
    assert [trial.name for trial in trials][: len(tried) + 2] == [BASE, "int8", *tried]
    assert [trial.name for trial in trials if trial.candidate.resized] == tried
    without = World(0, slope=0.3).searched(Budgets(max_drop=1))
    assert [t.name for t in trials if not t.candidate.resized] == [t.name for t in without]


@pytest.mark.parametrize(("smaller", "latency_ms"), [(0.2, 4.5), (0.2, 3.3), (9.0, 4.5)])
def test_where_smaller_images_meet_the_budgets_nothing_is_trained(smaller, latency_ms):
    """Whole it takes 10 ms and 5 in int8; at 77 px 8.6 and 4.3, at 48 px 6.2 and 3.1."""
    budgets = Budgets(max_drop=1, latency_ms=latency_ms)
    trials = World(0, slope=0.3, off=0.0, smaller=smaller).searched(budgets)
    names = [trial.name for trial in trials]
    resized = [name for name in names if name.startswith("resized")]
    assert resized == (["resized-77", "resized-77-int8"] if latency_ms == 4.5 else ["resized-48", "resized-48-int8"])
    if smaller < 1:
        assert [name for name in names if name not in (BASE, "int8")] == resized
        assert best_of(trials, budgets).name == resized[-1]
    else:
        assert best_of(trials, budgets).name.startswith("pruned")


def test_smaller_images_are_no_way_to_fewer_bytes():
    trials = World(0, slope=0.3, smaller=0.0).searched(Budgets(max_drop=5, size_bytes=2e6))
    assert [trial.candidate.is_cut for trial in trials[1:]] == [True] * (len(trials) - 1)
    assert any(trial.candidate.is_cut for trial in trials)


def test_where_cuts_take_half_of_the_bytes_that_were_promised_larger_ones_are_found():
    """Promises are put right by what was tried, and every share is tried that may meet the budget by then."""
    world, budgets = World(0, slope=0.3, off=0.0), Budgets(max_drop=100, size_bytes=1e6)
    for candidate, costs in world.costs.items():
        if candidate.is_cut:
            costs["size_bytes"] = world.promised[replace(candidate, longer=False)]["size_bytes"] / 2
    trials, promised = [], world.promised
    while (candidate := next_candidate(trials, budgets, promised)) is not None:
        trials.append(world.trial(candidate))
        promised = as_small(world.promised, {t.candidate: t.costs["size_bytes"] for t in trials})
    assert best_of(trials, budgets).candidate == Candidate(0.8, int8=True)  # 1 MB instead of 2
    assert promises_any(replace(budgets, size_bytes=7e4), world.promised)  # 0.125 MB are promised at least
    assert not promises_any(replace(budgets, size_bytes=5e4), world.promised)


def test_what_loses_little_too_much_recovers_longer():
    """1.1 points at 0.4 of the MACs and 1.8 at 0.3, of which a longer recovery leaves a half, as of 2.7 at 0.22, which
    is too much still; what is hopeless is not tried."""
    world, budgets = World(0, 0.75, back=0.5), Budgets(1.0)
    found = best_of(trials := world.searched(budgets), budgets)
    assert found.candidate == Candidate(0.3, int8=True, longer=True)
    assert [t.candidate.share for t in trials if t.candidate.longer] == [0.4, 0.4, 0.3, 0.3, 0.22, 0.22]
    assert not any(trial.candidate.longer for trial in World(0, 20, back=0.5).searched(budgets))
    in_vain = World(0, 0.75, back=0.5)
    in_vain.recovers = False
    assert not any(trial.candidate.longer for trial in in_vain.searched(budgets))


def test_with_blocks_left_out_what_loses_little_too_much_recovers_longer_too():
    """Nothing is trained long that promises to be slower than what holds by then."""
    world, budgets = World(0, 0.75, off=0, back=0.5, blocks=(4, 8), missed=0.05, int8=0), Budgets(1.0)
    trials = world.searched(budgets)
    found = best_of(trials, budgets)
    assert (found.candidate.blocks, found.candidate.longer) == (8, True)
    meeting = [world.trial(candidate) for candidate in world.points if world.points[candidate] <= 1]
    assert found.latency_ms == min(trial.latency_ms for trial in meeting)
    for number, trial in enumerate(trials):
        if trial.candidate.longer:
            held = [t for t in trials[:number] if t.keeps(budgets) and not t.candidate.longer]
            both = [replace(trial.candidate, longer=False, int8=int8) for int8 in (False, True)]
            fastest = min(world.promised[candidate]["latency_ms"] for candidate in both)
            assert fastest < min(world.promised[t.candidate]["latency_ms"] for t in held)


@pytest.mark.parametrize(("slope", "costs", "share"), [(0.03, {}, 0.05), (0.3, {"macs": 3.2e7}, 0.3)])
def test_what_is_chosen_recovers_longer_where_it_loses_anything(slope, costs, share):
    """0.6 and 0.7 points, of which a longer recovery leaves half; of what is as fast that is taken."""
    world = World(0, slope, off=0, back=0.5, int8=0)
    found = best_of(world.searched(Budgets(1.0, **costs)), Budgets(1.0, **costs))
    assert found.candidate == Candidate(share, int8=not costs, longer=True)
    nothing = World(0, 0.0, off=0, back=0.5, int8=0)
    assert not any(trial.candidate.longer for trial in nothing.searched(Budgets(1.0, **costs)))


@pytest.mark.parametrize("missed", [0.0, 0.02])
def test_a_larger_share_that_nobody_tried_does_not_end_the_longer_recoveries(missed):
    """In int8 it promises to be faster than what holds, in float alone: there the halving went past it."""
    world, budgets = World(0, 0.1, off=0, back=0.5, blocks=(4, 8), missed=missed, int8=0.5), Budgets(1.0)
    found = best_of(world.searched(budgets), budgets)
    assert found.latency_ms == min(world.trial(c).latency_ms for c, points in world.points.items() if points <= 1)


def test_one_recovers_longer_to_be_surer_whichever_is_the_fastest_by_then():
    world, budgets = World(0, 0.03, off=0, back=1.0, int8=0), Budgets(1.0)
    trials = world.searched(budgets)
    assert sum(trial.candidate.longer for trial in trials) == 2
    other = next(
        trial for trial in trials if trial.candidate.share not in (None, best_of(trials, budgets).candidate.share)
    )
    wandered = [replace(t, latencies={"onnxruntime": 0.01}) if t is other else t for t in trials]
    assert best_of(wandered, budgets).candidate == other.candidate
    assert next_candidate(wandered, budgets, world.promised) is None


def test_of_what_was_not_timed_nothing_recovers_longer_to_be_surer():
    """Promises do not tell which of those that are alike is the fastest, and so will be chosen."""
    world, budgets = World(0, 0.03, off=0, back=0.5, int8=0), Budgets(1.0)
    trials = []
    while (candidate := next_candidate(trials, budgets, world.promised)) is not None:
        trials.append(replace(world.trial(candidate), latencies={}))
    assert not any(trial.candidate.longer for trial in trials)
    timed = [world.trial(trial.candidate) for trial in trials]
    chosen = best_of(timed, budgets).candidate
    for longer in (replace(chosen, longer=True, int8=False), replace(chosen, longer=True)):
        assert next_candidate(timed, budgets, world.promised) == longer
        timed.append(world.trial(longer))


def test_with_budgets_of_costs_one_that_meets_them_recovers_longer():
    world, budgets = World(0, 0.75, off=0, back=0.5), Budgets(1.0, macs=3e7)
    found = best_of(world.searched(budgets), budgets)
    assert found.candidate == Candidate(0.3, int8=False, longer=True)


def test_what_recovers_longer_with_most_blocks_left_out_spares_what_would_be_slower():
    world, budgets = World(0, 0.5, off=0.0, back=0.3, blocks=(5, 9), missed=0.1), Budgets(1.0)
    trials = world.searched(budgets)
    assert {trial.candidate.blocks for trial in trials if trial.candidate.longer} == {9}
    fastest = min(world.costs[c]["latency_ms"] for c in world.costs if world.points[c] <= 1)
    assert best_of(trials, budgets).latency_ms <= ALIKE * fastest


@pytest.mark.parametrize("missed", [0.0, 0.02, 0.1, 0.2, 1.0])
@pytest.mark.parametrize("slope", [0.02, 0.2, 0.5, 2, 20])
@pytest.mark.parametrize("back", [1.0, 0.5])
def test_with_blocks_left_out_the_fastest_is_found_too(slope, missed, back):
    """Of all that there are with short recoveries, or a faster one, in far fewer trials, where promises are true."""
    world, budgets = World(0, slope, off=0, blocks=(4, 8), missed=missed, int8=0, back=back), Budgets(1.0)
    trials = world.searched(budgets)
    meeting = [world.trial(candidate) for candidate in world.promised if world.points[candidate] <= 1]
    found, fastest = best_of(trials, budgets), min(trial.latency_ms for trial in meeting)
    assert found.latency_ms <= ALIKE * fastest
    failed: dict[int, float] = {}  # by blocks, the largest share of which both forms lose too much
    for number, trial in enumerate(trials):
        own = trial.candidate
        if own.share is not None and not own.longer and not own.int8:
            assert own.share > failed.get(own.blocks, 0.0), "what is cut deeper loses more"
        there = [t for t in trials[: number + 1] if replace(t.candidate, int8=False) == replace(own, int8=False)]
        last = number + 1 == len(trials) or trials[number + 1].candidate.share != own.share
        if own.share is not None and not own.longer and last and not any(t.keeps(budgets) for t in there):
            failed[own.blocks] = max(failed.get(own.blocks, 0.0), own.share)
    assert len([trial for trial in trials if not trial.candidate.longer]) <= 2 + 2 * 4 + 2 * 2 * 5
    assert any(trial.candidate.blocks for trial in trials)


@pytest.mark.parametrize(("missed", "blocks"), [(0.0, 4), (0.05, 4), (0.2, 4), (9.0, None)])
def test_with_budgets_of_costs_blocks_go_where_nothing_else_meets_them(missed, blocks):
    """2 ms takes 0.22 of the MACs in int8, at which 3.5 points are lost; without 4 blocks of 10 it takes 0.5."""
    budgets = Budgets(2.0, latency_ms=2.0)
    world = World(0, 1.0, off=0, blocks=(4, 8), missed=missed)
    assert best_of(World(0, 1.0, off=0).searched(budgets), budgets) is None
    found = best_of(world.searched(budgets), budgets)
    assert (found and found.candidate.blocks) == blocks
    easy = Budgets(1.5, latency_ms=8.0)
    assert not any(trial.candidate.blocks for trial in world.searched(easy)), "where a plain cut meets them, none is"


def test_without_blocks_int8_that_promises_to_be_slower_is_tried_where_it_must_be_small():
    """As of narrow layers on a processor without 8-bit products."""
    world = World(0, 0.1, off=0, int8=0, blocks=(4, 8))
    for candidate, costs in world.promised.items():
        costs["latency_ms"] *= 3 if candidate.int8 and candidate.share is not None else 1
    tried = [trial.candidate for trial in world.searched(Budgets(1.0))]
    assert {(c.int8, bool(c.blocks)) for c in tried} == {(False, False), (True, False), (False, True)}
    small = [trial.candidate for trial in world.searched(Budgets(5.0, latency_ms=1.5, size_bytes=2e5))]
    assert any(c.blocks and c.int8 for c in small)


def test_a_budget_that_only_shorter_networks_promise_is_not_refused():
    world, budgets = World(0, 0.01, off=0, blocks=(4, 8)), Budgets(5.0, latency_ms=0.3)
    assert not promises_any(budgets, World(0, 0.01, off=0).promised)
    assert promises_any(budgets, world.promised)
    tried = [trial.candidate for trial in world.searched(budgets)]
    assert {c.blocks for c in tried if c.share is not None} == {8}


def test_every_share_is_tried_where_they_are_named():
    trials, shares = [], (0.5, 0.3)
    world, budgets = World(0, 20), Budgets(1.0)
    while (c := next_candidate(trials, budgets, world.promised, shares, each=True)) is not None:
        trials.append(world.trial(c))
    assert [t.candidate for t in trials] == [Candidate(s, int8) for s in (None, *shares) for int8 in (False, True)]


def test_students_that_may_meet_the_budgets_are_each_taught_after_the_short_recoveries():
    def tried(budgets):
        trials = []
        while (c := next_candidate(trials, budgets, promised, students=["small", "large"])) is not None:
            plain = c.student is None
            trials.append(world.trial(c) if plain else Trial(c.name, c, reason="not of this world"))
        return [trial.candidate for trial in trials]

    world = World(0, 0.75, back=0.5)
    promised = world.promised | {
        Candidate(student=name, int8=int8): {"latency_ms": ms, "size_bytes": 1e5, "macs": 1e6}
        for name, ms in (("small", 1.0), ("large", 50.0))
        for int8 in (False, True)
    }
    every = tried(Budgets(1.0))
    students = [candidate for candidate in every if candidate.student is not None]
    assert students == [Candidate(student=name, int8=int8) for name in ("small", "large") for int8 in (False, True)]
    assert {c.longer for c in every[: every.index(students[0])]} == {False}
    assert {c.longer for c in every[every.index(students[-1]) + 1 :]} == {True}
    assert {c.student for c in tried(Budgets(1.0, latency_ms=2.0))} == {None, "small"}


@pytest.mark.parametrize("slope", [0.02, 0.2, 0.5, 2, 20])
@pytest.mark.parametrize("costs", [{}, {"latency_ms": 2.5}, {"size_bytes": 2e6}])
@pytest.mark.parametrize("blocks", [(), (4, 8)])
def test_two_workers_find_what_one_finds(slope, costs, blocks):
    """Each takes what the other is not at; what is at work comes out in any order."""
    world, budgets, rng = World(0, slope, blocks=blocks), Budgets(1.0, **costs), random.Random(1)
    trials, running, both = [], [], 0
    while True:
        at_work = {candidate for candidate, _ in running}
        candidate = next_candidate(trials, budgets, world.promised, running=at_work)
        if candidate is not None and len(running) < 2:
            assert candidate not in at_work | {trial.candidate for trial in trials}
            running.append((candidate, world.trial(candidate)))
            both += len(running) == 2
            continue
        if not running:
            break
        trials.append(running.pop(rng.randrange(len(running)))[1])
    serial = best_of(world.searched(budgets), budgets)
    found = best_of(trials, budgets)
    if blocks and costs and found is not None:  # what was begun in vain may be better still
        assert serial is None or found.costs["macs"] >= serial.costs["macs"]
    else:
        assert (found and found.candidate) == (serial and serial.candidate)
    assert both > 0 or costs or slope == 20


def test_a_trial_is_shown_against_every_budget():
    world, budgets = World(0, 0.3), Budgets(1.5, latency_ms=20, size_bytes=2e6, macs=3e7)
    trial = world.trial(Candidate(0.5))
    costs = trial.costs
    shown = trial.against(budgets)
    assert shown.startswith(f"{trial.lost:.1f} of 1.5 points, ")
    assert re.findall(r"([\d.]+) (ms|MB|M) of ([\d.]+) ", shown) == [
        (f"{costs['latency_ms']:#.3g}", "ms", "20.0"),
        (f"{costs['size_bytes'] / 1e6:#.3g}", "MB", "2.00"),
        (f"{costs['macs'] / 1e6:#.3g}", "M", "30.0"),
    ]


def test_by_how_much_a_trial_is_over_its_budgets_is_in_its_last_cell():
    world, budgets = World(0, 0.3, off=0), Budgets(1.5, latency_ms=2.5, size_bytes=1e7, macs=1e8 / 7)
    whole = world.trial(Candidate())
    assert whole.cells(budgets)[-1] == "latency 4x, MACs 7x"
    assert replace(whole, latencies={}).cells(budgets)[-1] == "latency not known, MACs 7x"
    assert world.trial(Candidate(0.1)).cells(budgets)[-1] == ""
    assert len(whole.cells(budgets)) == len(HEADER) == len(WIDTHS)


def test_a_budget_that_nothing_promises_is_known_before_any_training():
    world, budgets = World(0, 0.1), Budgets(1.0, latency_ms=0.1)
    assert not promises_any(budgets, world.promised)
    candidate, over = least_promised(budgets, world.promised)
    assert candidate == Candidate(SHARES[-1], int8=True)
    assert over["latency_ms"] == pytest.approx(world.promised[candidate]["latency_ms"] / 0.1)


def test_a_search_goes_on_where_it_stopped():
    """The next candidate follows from what was found alone, in whatever order it was."""
    world, budgets = World(1, 0.3), Budgets(1.0)
    trials = world.searched(budgets)
    for done in range(len(trials)):
        mixed = trials[:done]
        random.Random(done).shuffle(mixed)
        assert next_candidate(mixed, budgets, world.promised) == trials[done].candidate


def test_a_candidate_that_fails_counts_as_one_that_loses_too_much():
    world, budgets = World(0, 0.01), Budgets(1.0)
    trials = []
    while (candidate := next_candidate(trials, budgets, world.promised)) is not None:
        fails = (candidate.share or 1) < 0.5
        trials.append(Trial(candidate.name, candidate, reason="no") if fails else world.trial(candidate))
    assert best_of(trials, budgets).candidate == Candidate(0.5, int8=True)


def test_of_some_that_were_timed_the_fastest_is_chosen():
    world, budgets = World(0, 0.01), Budgets(1.0)
    trials = [world.trial(Candidate(share, int8)) for share in (None, 0.5, 0.3, 0.15) for int8 in (False, True)]
    timed = [replace(t, latencies={}) if t.candidate.share == 0.15 else t for t in trials]
    fastest = min((t for t in timed if t.latencies and t.name != "fit"), key=lambda t: t.latency_ms)
    assert best_of(timed, budgets) is fastest


def test_of_two_networks_of_the_same_widths_the_one_that_loses_less_is_chosen():
    """However far apart noise has put them; another that is as much faster is faster."""
    world, short = World(0, slope=0.3, off=0.0, back=0.5), Candidate(0.5)
    longer, budgets = replace(short, longer=True), Budgets(max_drop=5)
    timed = [
        replace(world.trial(short), latencies={"onnxruntime": 1.0}),
        replace(world.trial(longer), latencies={"onnxruntime": 1.1}),
        replace(world.trial(Candidate(0.4)), latencies={"onnxruntime": 1.2}),
    ]
    assert best_of(timed, budgets).candidate == longer
    faster = replace(world.trial(Candidate(0.4)), latencies={"onnxruntime": 0.9})
    assert best_of([*timed[:2], faster], budgets).candidate == Candidate(0.4)


def test_where_something_could_not_be_timed_the_smallest_is_chosen():
    world, budgets = World(0, 0.1), Budgets(1.0)
    trials = [world.trial(candidate) for candidate in EVERY[:4]]
    untimed = [Trial(t.name, t.candidate, None, t.kept, t.metrics, t.drop) for t in trials]
    assert best_of(untimed, budgets).name == min(trials[1:], key=lambda t: t.costs["size_bytes"]).name
    assert best_of(untimed[:1], budgets) is None  # the fitted model is no compression of itself
    assert best_of(untimed[:1], Budgets(1.0, size_bytes=1e9)).name == BASE  # but may meet a budget as it is
