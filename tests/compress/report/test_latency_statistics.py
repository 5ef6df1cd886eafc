"""Speed-ups: direction, the pairing, the coverage of the interval, ties."""

from __future__ import annotations

import numpy as np
import pytest

from compress.report.statistics import SAMPLES_FOR_P90, SAMPLES_FOR_P99, Ratio, ratio_interval


def test_speed_up_of_b_is_time_of_a_over_time_of_b():
    ratio = ratio_interval([4.0, 4.2, 3.8], [2.0, 2.1, 1.9])
    assert (ratio.median, ratio.lo, ratio.hi) == (2.0, 2.0, 2.0)
    assert ratio.verdict(5.0) == "faster"
    assert ratio_interval([2.0, 2.1], [4.0, 4.2]).verdict(5.0) == "slower"


def test_what_slows_a_whole_round_leaves_the_interval_alone():
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 0.02, 15), rng.normal(2, 0.02, 15)
    slow = 2.0 ** rng.integers(0, 3, 15)  # a neighbour came and went; powers of two round nothing
    paired = ratio_interval(a * slow, b * slow)
    assert paired == ratio_interval(a, b)
    assert paired.hi - paired.lo < 0.05


def test_same_seed_same_interval():
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(size=(2, 9))
    assert ratio_interval(a, b, seed=3) == ratio_interval(a, b, seed=3)


def test_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        a, b = np.exp(rng.normal([[0.7], [0.0]], 0.1, (2, 15)))  # the true median ratio is e^0.7
        ratio = ratio_interval(a, b)
        hits += ratio.lo <= np.exp(0.7) <= ratio.hi
    assert 0.88 <= hits / 200 <= 0.99


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


@pytest.mark.parametrize(
    ("a", "b", "match"), [([1.0], [1.0, 2.0], "in pairs"), ([], [], "in pairs"), ([0.0], [1.0], "positive")]
)
def test_refuses_rounds_that_are_no_pairs(a, b, match):
    with pytest.raises(ValueError, match=match):
        ratio_interval(a, b)
