"""Accuracy intervals against published values, the definition solved by another road, and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm

from transfer.evaluation.statistics import GAIN, GAIN_SD, Z95, mean_share, out_of_fold, paired_drop, wilson


@pytest.mark.parametrize(("correct", "n"), [(81, 263), (15, 148), (0, 20), (1, 29), (29, 29)])
def test_wilson_is_scipys(correct, n):
    reference = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson(correct, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_gives_the_published_interval():
    lo, hi = wilson(81, 263)  # Newcombe 1998, Statistics in Medicine 17:857-872, Table I: 0.2553 to 0.3662
    assert (round(lo, 4), round(hi, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_counts_that_cannot_be(correct, n):
    with pytest.raises(ValueError, match="wanted 0 <= correct <= n"):
        wilson(correct, n)


def answers(lost, won, both, neither=0):
    """(before, after) of models that agree on `both` right and `neither` right images."""
    before = [1] * lost + [0] * won + [1] * both + [0] * neither
    after = [0] * lost + [1] * won + [1] * both + [0] * neither
    return before, after


def likelihood_score(lost, won, n, d):
    """The score statistic of difference d, its nuisance parameter found by maximizing the trinomial likelihood."""

    def negative(q):
        rest = 1 - 2 * q - d
        return -(lost * math.log(q + d) + won * math.log(q) + (n - lost - won) * math.log(rest))

    lowest, highest = max(0.0, -d), (1 - d) / 2
    q = minimize_scalar(
        negative, bounds=(lowest + 1e-12, highest - 1e-12), method="bounded", options={"xatol": 1e-12}
    ).x
    return (lost - won - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


@pytest.mark.parametrize(("lost", "won", "n"), [(12, 2, 50), (3, 8, 359), (1, 1, 30), (150, 86, 1600)])
def test_interval_ends_where_the_score_test_starts_to_reject(lost, won, n):
    drop = paired_drop(*answers(lost, won, n - lost - won))
    lo, hi = (points / 100 for points in drop.ci_points)
    assert lo < (lost - won) / n < hi
    assert likelihood_score(lost, won, n, lo) == pytest.approx(Z95, abs=1e-4)
    assert likelihood_score(lost, won, n, hi) == pytest.approx(-Z95, abs=1e-4)


def test_no_flips_leave_a_width():
    drop = paired_drop(*answers(0, 0, 300, 59))
    edge = 100 * Z95**2 / (359 + Z95**2)  # the score equation in closed form where nothing flipped
    assert drop.ci_points == pytest.approx((-edge, edge))
    assert (drop.points, drop.mcnemar_p, drop.n, drop.flips) == (0.0, 1.0, 359, 0)


def test_every_answer_lost():
    drop = paired_drop([1] * 10, [0] * 10)
    assert drop.points == 100
    assert drop.ci_points[1] == 100
    assert drop.mcnemar_p == pytest.approx(2 * 0.5**10)


def test_better_is_the_mirror_of_worse():
    before, after = answers(9, 3, 100, 5)
    worse, better = paired_drop(before, after), paired_drop(after, before)
    assert better.points == -worse.points
    assert better.ci_points == pytest.approx((-worse.ci_points[1], -worse.ci_points[0]))
    assert better.mcnemar_p == worse.mcnemar_p


@pytest.mark.parametrize(("lost", "won"), [(0, 1), (5, 5), (10, 2), (3, 30)])
def test_mcnemar_is_the_exact_binomial_test(lost, won):
    assert paired_drop(*answers(lost, won, 50)).mcnemar_p == pytest.approx(binomtest(lost, lost + won).pvalue)


def test_interval_covers_as_often_as_it_says():
    """Coverage over every outcome of n = 60 images at true rates of loss and gain, weighted by its probability."""
    n, p_lost, p_won = 60, 0.08, 0.05
    covered = total = 0.0
    for lost in range(21):
        for won in range(21):
            weight = binom.pmf(lost, n, p_lost) * binom.pmf(won, n - lost, p_won / (1 - p_lost))
            if weight < 1e-7:
                continue
            lo, hi = paired_drop(*answers(lost, won, n - lost - won)).ci_points
            total += weight
            covered += weight * (lo <= 100 * (p_lost - p_won) <= hi)
    assert total == pytest.approx(1, abs=1e-3)
    assert 0.93 <= covered / total <= 0.98


def test_answers_as_digits():
    before, after = answers(7, 3, 50)
    digits = ["".join(str(int(right)) for right in flags) for flags in (before, after)]
    assert paired_drop(*digits) == paired_drop(before, after)


def test_answers_must_be_of_the_same_images():
    with pytest.raises(ValueError, match="3 answers before, 2 after"):
        paired_drop([1, 0, 1], [1, 0])
    with pytest.raises(ValueError, match="of 0 and 1"):
        paired_drop(np.array([0.5, 1]), np.array([1, 1]))


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (5, 5), (37, 50)])
def test_the_mean_of_one_share_is_wilsons(correct, n):
    mean, bounds = mean_share([correct, 0], [n, 0])  # a class of no images does not count
    assert mean == correct / n
    assert bounds == pytest.approx(wilson(correct, n), abs=1e-12)


@pytest.mark.parametrize("correct", [0, 3, 10])
def test_the_mean_of_like_shares_is_as_sure_as_all_their_images(correct):
    mean, bounds = mean_share([correct] * 6, [10] * 6)
    assert mean == pytest.approx(correct / 10)
    assert bounds == pytest.approx(wilson(6 * correct, 60), abs=1e-12)


@pytest.mark.parametrize(
    ("shares", "images"),
    [
        ((0.95, 0.9, 0.6, 0.99, 0.8, 0.7, 0.97, 0.5, 0.9), (17, 26, 44, 53, 34, 32, 45, 78, 52)),
        ((0.99,) * 10, (36,) * 10),
        ((0.9,) * 40, (4,) * 40),
        ((0.8,) * 100, (2,) * 100),
        ((0.1, 0.95), (8, 400)),
        (tuple(np.linspace(0.2, 1, 37)), (20,) * 37),
    ],
)
def test_the_interval_of_a_mean_holds_it_as_often_as_it_says(shares, images):
    rng, inside = np.random.default_rng(0), 0
    for correct in rng.binomial(images, shares, size=(2000, len(shares))):
        lo, hi = mean_share(correct, images)[1]
        inside += lo <= np.mean(shares) <= hi
    assert 0.93 < inside / 2000 <= 0.996


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one of them of images"):
        mean_share([0, 0], [0, 0])


MANY = [100] * 4  # images of each class: a tenth fewer of them changes little


def test_a_class_of_four_learns_much_from_its_fourth():
    """By the power law, for each image of its own class; what is left out of large classes is a fold."""
    errors = 0.3
    right = [1] * 70 + [0] * 30
    assert out_of_fold(right, 100, [4] * 25)[0] == pytest.approx(1 - errors * 0.75 ** (1 / 3))
    assert out_of_fold(right, 10, [50, 50])[0] == pytest.approx(1 - errors * 0.9 ** (1 / 3))
    mixed = (20 * 0.5 ** (1 / 3) + 80 * 0.9 ** (1 / 3)) / 100
    assert out_of_fold(right, 10, [2] * 10 + [40, 40, 1])[0] == pytest.approx(1 - errors * mixed)
    assert out_of_fold([1] * 100, 10, [4] * 25)[0] == 1


def drawn(rng, images, validation, accuracy, gain):
    """Answers to images of some difficulty, each of which decides for the model before and after alike, mostly."""
    hard = rng.random(images)
    before = (hard + rng.normal(0, 0.15, images)) < accuracy
    after = (hard[:validation] + rng.normal(0, 0.15, validation)) < accuracy + gain
    return before, after


@pytest.mark.parametrize("gain", [None, 0.0, 0.1])
@pytest.mark.parametrize(("images", "validation", "accuracy"), [(60, 12, 0.6), (120, 24, 0.8), (500, 100, 0.85)])
def test_what_is_expected_of_new_images_holds_as_often_as_it_says(images, validation, accuracy, gain):
    rng = np.random.default_rng(0)
    sure = drawn(np.random.default_rng(1), 400_000, 400_000, accuracy, gain or 0.0)
    truth = sure[gain is not None].mean()
    means, held = [], 0
    for _ in range(400):
        before, after = drawn(rng, images, validation, accuracy, gain or 0.0)
        mean, (low, high) = out_of_fold(before, 10, MANY, None if gain is None else (before[:validation], after))
        means.append(mean)
        held += low <= truth <= high
    assert held / 400 >= 0.94
    off = 0 if gain is None else abs(gain - GAIN)  # drawn to what training brings elsewhere
    assert np.mean(means) == pytest.approx(truth, abs=0.012 + off)
    alone = math.sqrt(truth * (1 - truth) / validation)
    assert np.std(means) < 0.75 * alone, "less than the fold's own accuracy varies by"


def test_answers_that_share_their_training_images_say_less_than_independent_ones():
    """Nadeau and Bengio 2003, as scikit-learn's own example of it has it: 1 / J + test / train for 1 / J."""
    right, (low, high) = [1] * 160 + [0] * 40, wilson(160, 200)
    mean, interval = out_of_fold(right, 10, MANY)
    assert mean == pytest.approx(0.8, abs=0.008)
    wider = (interval[1] - interval[0]) / (high - low)
    assert wider == pytest.approx(math.sqrt((1 / 10 + 1 / 9) / (1 / 10)), rel=0.02)


def test_what_training_brought_is_believed_as_far_as_there_are_images():
    """By the conjugate posterior of a normal mean, with SciPy's numbers as the judge."""
    right = [1] * 300 + [0] * 300
    start = out_of_fold(right, 10, MANY)[0]
    few, many = (
        out_of_fold(right, 10, MANY, ([0] * n + [1] * n, [0] * (n // 2) + [1] * (n + n - n // 2)))[0] - start
        for n in (10, 4000)
    )
    assert many == pytest.approx(0.25, abs=0.005), "thousands of images are believed"
    assert GAIN < few < 0.1, "twenty hardly"
    grid = np.linspace(-0.3, 0.6, 20001)
    changes = np.array([1.0] * 5 + [0.0] * 15)
    smoothed = np.average((np.array([*changes, -1, 0, 0, 1]) - 5 / 22) ** 2, weights=[1] * 20 + [0.5] * 4)
    likelihood = norm.pdf(0.25, grid, math.sqrt(smoothed / 20 * (1 + 1 / 9))) * norm.pdf(grid, GAIN, GAIN_SD)
    assert few == pytest.approx(np.average(grid, weights=likelihood), abs=1e-4)
