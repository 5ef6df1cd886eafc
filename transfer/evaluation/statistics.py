"""How sure an accuracy is, and a change of accuracy on the same images. NumPy and SciPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import bdtr

Z95 = 1.959963984540054  # the normal quantile of 0.975: every interval here is a two-sided 95% one

# What a fine-tuning brought over its probe on other images, of 31 of 16 small tasks: mean and standard deviation,
# without the noise of the measurement. What the held-out folds, of 9 to 80 images, said of it told little: a
# correlation of 0.07.
GAIN, GAIN_SD = 0.03, 0.035
# The power of the number of images with which errors fall (Hestness et al. 2017, Deep Learning Scaling is Predictable,
# Empirically, arXiv 1712.00409, table 1: 0.31 of ImageNet's top-1). Of probes of 16 small tasks, three times divided,
# accuracy out of fold was 1.3 points below that on other images, of classes of up to six images 4.1; corrected
# by a power of 0.35, 0.1 below.
LEARNS = 1 / 3


@dataclass(frozen=True)
class PairedDrop:
    """What was lost from `before` to `after` on the same images; positive is worse.

    Attributes:
        points: accuracy before minus after, in percentage points.
        ci_points: its 95% interval, in percentage points.
        mcnemar_p: exact two-sided p of "as many images were lost as won".
        n: images.
        flips: images that one of the two got right and the other wrong.
    """

    points: float
    ci_points: tuple[float, float]
    mcnemar_p: float
    n: int
    flips: int


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927; Brown, Cai and DasGupta 2001 recommend it), in 0..1."""
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} correct of {n} images: wanted 0 <= correct <= n and at least one image")
    return _wilson(correct / n, n)


def mean_share(correct: ArrayLike, n: ArrayLike) -> tuple[float, tuple[float, float]]:
    """The mean of several independent shares, each of the same weight, and its 95% interval, in 0..1.

    Wilson's interval at the effective sample size: that of one share which would vary as much as this mean does, as is
    done for stratified surveys (Franco, Little, Louis and Slud 2019, Journal of Survey Statistics and Methodology
    7:334-364, compare it with others). The variance takes each share by the rule of succession, (correct + 1) /
    (n + 2): as it stands, a share of 0 or 1, which small classes often have, would vary by nothing. Of one share it is
    Wilson's interval; of many, of 2 to 400 images, it holds the truth in 93% to 99.5% of draws (the tests draw them).

    Args:
        correct, n: (K,) counts; at least one of `n` is above 0, and shares of none are left out.
    """
    right, total = np.asarray(correct), np.asarray(n)
    counted = total > 0
    if right.shape != total.shape or right.ndim != 1 or not counted.any():
        raise ValueError(f"correct {right.shape} of {total.shape}: wanted (K,) counts, at least one of them of images")
    right, total = right[counted], total[counted]
    mean, likely = float((right / total).mean()), (right + 1) / (total + 2)
    variance = float((likely * (1 - likely) / total).sum()) / len(total) ** 2
    middle = float(likely.mean())
    return mean, _wilson(mean, middle * (1 - middle) / variance)


def out_of_fold(
    right: ArrayLike, folds: int, counts: ArrayLike, changed: tuple[ArrayLike, ArrayLike] | None = None
) -> tuple[float, tuple[float, float]]:
    """What share of new images a model answers right, by answers of models like it to images that they had not seen.

    These have learned from fewer: from three of a class of four, where its fourth is left out. So there are the more
    errors among them, by the power LEARNS of the share of the image's class that was left.

    Of a model that was trained further `right` is of what it began with, and the answers of one fold before and after,
    too few to say what the training brought. That is drawn to what it has brought elsewhere, the more the fewer they
    are: the mean of a normal gain of mean GAIN and deviation GAIN_SD, given the fold's difference and how much such a
    difference varies (empirical Bayes; Efron and Morris 1977, Stein's Paradox in Statistics).

    The interval is Wilson's at the effective number of images. Answers out of J folds vary by more than N independent
    ones, since any two of the training sets share most of their images: 1 + J / (J - 1) times as much, those out of one
    fold 1 + 1 / (J - 1) times (Nadeau and Bengio 2003, Inference for the Generalization Error, Machine Learning
    52:239-281, sec. 3). Shares are taken by the rule of succession, as in `mean_share`.

    Args:
        right: (N,) of 0 and 1, 1 where the answer is right.
        folds: J; N where each image was left out alone.
        counts: (K,) images of each class that the model was trained on.
        changed: (n,) of 0 and 1 each, of one fold before and after the further training.
    """
    flags = _flags(right)
    n = len(flags)
    images = np.asarray(counts)[np.asarray(counts) > 1]
    fewer = float(np.average((1 - np.maximum(1 / images, 1 / folds)) ** LEARNS, weights=images))
    mean, likely = 1 - fewer * (1 - float(flags.mean())), 1 - fewer * (n - float(flags.sum()) + 1) / (n + 2)
    variance = likely * (1 - likely) / n * (1 + folds / (folds - 1))
    if changed is not None:
        before, after = map(_flags, changed)
        gains = after.astype(float) - before
        values = np.array([*gains, -1, 0, 0, 1])  # and half an image of each kind, as of the others
        weights = np.array([*np.ones(len(gains)), *np.full(4, 0.5)]) / (len(gains) + 2)
        spread = float(weights @ (values - weights @ values) ** 2) / len(gains) * (1 + 1 / (folds - 1))
        trusted = GAIN_SD**2 / (GAIN_SD**2 + spread)
        mean = min(max(mean + GAIN + trusted * (float(gains.mean()) - GAIN), 0.0), 1.0)
        likely, variance = (mean * n + 1) / (n + 2), variance + trusted * spread
    return mean, _wilson(mean, max(likely * (1 - likely) / variance, 1.0))


def _wilson(share: float, n: float) -> tuple[float, float]:
    z2 = Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    # a share of 0 or 1 is an end of its interval exactly; rounding would leave it outside
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def paired_drop(before: ArrayLike | str, after: ArrayLike | str) -> PairedDrop:
    """The drop in accuracy between two models on the same images.

    The interval is Tango's score interval (Tango 1998, Statistics in Medicine 17:891-908). Unlike a bootstrap or Wald's
    it keeps its width where few answers flipped, or none did: 359 images without a flip leave +-1.06 points open.

    Args:
        before, after: (N,) of 0 and 1, one an image in the same order, 1 where the answer is right; or a string of N
            such digits, as a model's metrics hold them ("correct").
    """
    first, second = _flags(before), _flags(after)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} answers before, {len(second)} after: wanted the same images in the same order")
    n = len(first)
    lost, won = int((first & ~second).sum()), int((second & ~first).sum())
    lo, hi = _tango(lost, won, n)
    p = min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5)))  # McNemar 1947, exact: binomial with one half
    return PairedDrop(100 * (lost - won) / n, (100 * lo, 100 * hi), p, n, lost + won)


def _flags(answers: ArrayLike | str) -> NDArray[np.bool_]:
    values = np.asarray([*map(int, answers)] if isinstance(answers, str) else answers)
    if values.ndim != 1 or values.size == 0 or not np.isin(values, (0, 1)).all():
        raise ValueError(f"answers of shape {values.shape}: wanted (N,) of 0 and 1, at least one")
    return values.astype(bool)


def _tango(lost: int, won: int, n: int) -> tuple[float, float]:
    """The differences d of two paired shares that the score test does not reject at 5%."""

    def score(d: float) -> float:
        # q: the likeliest share of won images if the difference were d, the root of a q^2 + b q + c (Tango 1998, eq. 6)
        a = 2 * n
        b = (2 * n - lost + won) * d - lost - won
        c = -won * d * (1 - d)
        q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * q + d * (1 - d))
        return (lost - won - n * d) / math.sqrt(variance) if variance > 0 else 0.0

    d, edge = (lost - won) / n, 1 - 1e-12
    lo = -1.0 if won == n else float(brentq(lambda x: score(x) - Z95, -edge, d))
    hi = 1.0 if lost == n else float(brentq(lambda x: score(x) + Z95, d, edge))
    return lo, hi
