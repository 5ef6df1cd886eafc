"""Speed-ups: direction, the pairing, the coverage of the interval, ties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from compress.report.statistics import (
    SAMPLES_FOR_P90,
    SAMPLES_FOR_P99,
    Ratio,
    TooBusy,
    median_interval,
    ratio_interval,
    speed_up,
    verdict_of,
)


def rows(a, b, **more):
    return {"rounds_ms": a, **more}, {"rounds_ms": b, **more}


def test_speed_up_of_b_is_time_of_a_over_time_of_b():
    ratio = speed_up(*rows([4.0, 4.2, 3.8], [2.0, 2.1, 1.9]), asked=3)
    assert (ratio.value, ratio.lo, ratio.hi) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio.verdict(5.0) == "faster"
    assert speed_up(*rows([2.0, 2.1], [4.0, 4.2]), asked=2).verdict(5.0) == "slower"
    assert speed_up(*rows([2.0, 2.1], [4.0]), asked=2) is None


def test_what_slows_a_whole_round_leaves_the_interval_alone():
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 0.02, 15), rng.normal(2, 0.02, 15)
    slow = 2.0 ** rng.integers(0, 3, 15)  # a neighbour came and went; powers of two round nothing
    paired = speed_up(*rows(a * slow, b * slow), asked=15)
    assert paired == speed_up(*rows(a, b), asked=15)
    assert paired.hi - paired.lo < 0.05


def test_interval_is_students():
    ratios = np.random.default_rng(1).lognormal(0.3, 0.1, 9)
    wanted = np.exp(stats.t.interval(0.95, 8, np.log(ratios).mean(), stats.sem(np.log(ratios))))
    ratio = ratio_interval(ratios)
    assert (ratio.lo, ratio.hi) == pytest.approx(tuple(wanted))
    assert ratio.value == pytest.approx(stats.gmean(ratios))


def test_of_one_ratio_nothing_is_said():
    assert ratio_interval([3.0]) == Ratio(pytest.approx(3.0), 0.0, np.inf)
    assert ratio_interval([3.0]).verdict(1.0) == "tie"


def test_interval_covers_what_a_process_does_to_its_speed():
    """Eight processes a model of two rounds each: the processes differ by 3%, the rounds in one by 0.5%."""
    rng = np.random.default_rng(2)
    launches = np.repeat(np.arange(8), 2).tolist()
    hits = pooled = 0
    for _ in range(400):
        logs = np.repeat(rng.normal(0, 0.03, (2, 8)), 2, axis=1) + rng.normal(0, 0.005, (2, 16))
        a, b = np.exp(logs + np.array([[0.7], [0.0]]))  # the true ratio is e^0.7
        ratio = speed_up(*rows(a, b, launches=launches), asked=16)
        hits += ratio.lo <= np.exp(0.7) <= ratio.hi
        one = speed_up(*rows(a, b), asked=16)
        pooled += one.lo <= np.exp(0.7) <= one.hi
    assert 0.92 <= hits / 400 <= 0.98
    assert pooled / 400 < 0.9  # rounds of one process are no new evidence


def test_one_process_that_was_left_alone_is_no_evidence():
    a, b, launches = [4.0] * 16, [2.0] * 16, np.repeat(np.arange(2), 8).tolist()
    launches4 = np.repeat(np.arange(4), 4).tolist()
    calm, one, two = [0.0] * 16, [0.0] * 8 + [0.5] * 8, [0.0] * 4 + [0.5] * 4 + [0.0] * 4 + [0.5] * 4
    assert isinstance(speed_up(*rows(a, b, taken=one, launches=launches), asked=16), TooBusy)
    assert isinstance(speed_up(*rows(a, b, taken=two, launches=launches4), asked=16), TooBusy)
    assert speed_up(*rows(a, b, taken=calm, launches=launches4), asked=16).value == pytest.approx(2.0)
    assert speed_up(*rows(a, b, taken=one), asked=16).value == pytest.approx(2.0)  # of a file without processes


def test_interval_of_a_median_goes_by_processes():
    rng = np.random.default_rng(3)
    launches = np.repeat(np.arange(8), 2)
    hits = 0
    for _ in range(200):
        ms = 2 * np.exp(np.repeat(rng.normal(0, 0.03, 8), 2) + rng.normal(0, 0.003, 16))
        lo, hi = median_interval(ms, launches)
        hits += lo <= 2 <= hi
    assert 0.88 <= hits / 200 <= 0.99
    assert median_interval([1.0, 2.0], [0, 0]) is None


def test_disturbed_rounds_have_no_say():
    a, b = [4.0] * 10 + [40.0] * 5, [2.0] * 15
    old, new = {"rounds_ms": a, "taken": [0.0] * 10 + [0.5] * 5}, {"rounds_ms": b, "taken": [0.01] * 15}
    for one, other in ((old, new), (old | {"taken": [0.0] * 15}, new | {"taken": old["taken"]})):
        assert speed_up(one, other, asked=15).value == pytest.approx(2.0)
    busy = speed_up(old | {"taken": [0.5] * 10 + [0.0] * 5}, new, asked=15)
    assert busy == TooBusy(pytest.approx(2 / 3), 2.0, 20.0)
    assert verdict_of(busy, 1.0) == verdict_of(busy, None) == "too busy to say"
    assert verdict_of(Ratio(2.0, 1.9, 2.1), None) is None  # how noisy the machine is, is not known
    assert verdict_of(Ratio(2.0, 1.9, 2.1), 1.0) == "faster"
    assert str(busy) == "too busy to say: 67% of the rounds were disturbed, which said 2.00 to 20.00 times"


@pytest.mark.parametrize(
    ("ratio", "floor_pct", "verdict"),
    [
        (Ratio(1.02, 0.99, 1.05), 0.5, "tie"),  # the interval holds 1
        (Ratio(1.02, 1.01, 1.03), 5.0, "tie"),  # the machine makes 5% out of nothing
        (Ratio(0.97, 0.96, 0.98), 5.0, "tie"),
        (Ratio(1.20, 1.15, 1.25), 5.0, "faster"),
        (Ratio(0.80, 0.75, 0.85), 5.0, "slower"),
    ],
)
def test_verdict(ratio, floor_pct, verdict):
    assert ratio.verdict(floor_pct) == verdict


def test_floor_is_the_farther_end_either_way():
    assert Ratio(1.0, 0.8, 1.1).floor_pct == pytest.approx(25)  # 0.8 and 1.25 are as far from 1
    assert Ratio(1.0, 0.99, 1.1).floor_pct == pytest.approx(10)


@pytest.mark.parametrize(("quantile", "n"), [(0.9, SAMPLES_FOR_P90), (0.99, SAMPLES_FOR_P99)])
def test_samples_bound_the_percentile_with_one_exceedance(quantile, n):
    def confidence(n):
        return 1 - quantile**n - n * (1 - quantile) * quantile ** (n - 1)

    assert confidence(n - 1) < 0.99 <= confidence(n)


@pytest.mark.parametrize("ratios", [[], [0.0], [[1.0]], [1.0, np.nan]])
def test_refuses_what_are_no_ratios(ratios):
    with pytest.raises(ValueError, match="wanted some"):
        ratio_interval(ratios)
