"""Whether a model is as sure as it is right: the reliability table, its errors, and one temperature that mends it.

Guo, Pleiss, Sun and Weinberger 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

if TYPE_CHECKING:
    from torch import nn

BINS = 15  # Guo et al. 2017, Table 1
TEMPERATURES = (0.05, 20.0)  # a search beyond them would mean that something else is wrong
CHANCE_ROUNDS = 200

Logits = NDArray[np.floating]


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is in (low, high].

    Attributes:
        n: how many they are.
        correct: how many of them are answered right.
        confidence: the mean of their confidences; 0 where there are none.
    """

    low: float
    high: float
    n: int
    correct: int
    confidence: float


def reliability(confidences: NDArray[np.floating], correct: NDArray[np.bool_], *, bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability table: (N,) confidences, each the probability of the answer given, in bins of equal width."""
    n, right, total = _binned(confidences, correct, bins)
    return tuple(
        Bin(i / bins, (i + 1) / bins, int(n[i]), int(right[i]), float(total[i] / max(n[i], 1))) for i in range(bins)
    )


def calibration_error(confidences: NDArray[np.floating], correct: NDArray[np.bool_], *, bins: int = BINS) -> float:
    """Expected calibration error, in 0..1: |accuracy - confidence| averaged over the images' bins (eq. 3)."""
    _, right, total = _binned(confidences, correct, bins)
    return float(np.abs(right - total).sum() / len(confidences))


def chance_error(confidences: NDArray[np.floating], *, bins: int = BINS) -> float:
    """The calibration error that a perfectly calibrated model of these confidences stays under 19 times of 20.

    It is above 0, the more the fewer images there are, since a share of few images is rarely what it should be. Found
    by drawing right and wrong answers with just these probabilities (Bröcker and Smith 2007, Weather and Forecasting
    22:651-661), with a fixed seed.
    """
    draw = np.random.default_rng(0).random
    errors = [
        calibration_error(confidences, draw(len(confidences)) < confidences, bins=bins) for _ in range(CHANCE_ROUNDS)
    ]
    return float(np.quantile(errors, 0.95))


def cross_entropies(logits: Logits, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) -ln(probability of the true class) of each image, in nats."""
    return -_of_labels(log_softmax(logits.astype(np.float64), axis=1), labels)


def negative_log_likelihood(logits: Logits, labels: NDArray[np.int64]) -> float:
    """Their mean over the images."""
    return float(cross_entropies(logits, labels).mean())


def fit_temperature(logits: Logits, labels: NDArray[np.int64]) -> float:
    """The temperature T that logits are to be divided by, chosen by likelihood on held-out images (sec. 4.2).

    Where every image is answered right, the likelihood alone would send T to 0: certain of everything, on the word of
    a few images. So one more is counted, an average one whose label is drawn at random, which stands for what was not
    seen (Platt 1999, Probabilistic Outputs for Support Vector Machines, smooths his targets for the same reason). Of n
    images all right by one margin it makes a confidence of about n / (n + 1); of many images, some of them wrong, it
    changes nothing that matters.

    Args:
        logits: (N, K) of images that the model was not trained on.
        labels: (N,) class indices.

    Returns:
        T in 0.05..20: above 1 for a model that is too sure of itself, below 1 for one that is too modest.
    """
    if len(logits) == 0 or len(logits) != len(labels):
        raise ValueError(f"logits of {len(logits)} images, labels of {len(labels)}: wanted as many, and at least one")
    exact = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(exact / math.exp(log_temperature), axis=1)
        unseen = log_p.mean()  # over images and classes
        return float(-_of_labels(log_p, labels).sum() - unseen) / (len(labels) + 1)

    low, high = (math.log(bound) for bound in TEMPERATURES)
    # convex in 1/T, so there is one minimum in ln T as well
    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    return math.exp(best) if loss(best) < loss(0.0) else 1.0  # logits that say nothing stay as they are


def fold_temperature_(model: nn.Module, temperature: float) -> None:
    """Divide the model's logits by `temperature`, in the weights and the bias of its classifier.

    So its softmax is calibrated in every file that is made of it, and no format needs to know. The order of the classes
    stays, and with it the accuracy; where a ReLU follows the classifier it commutes, the temperature being positive.
    Heads that run in training only are left alone.
    """
    import torch

    from zoo.classifier import classifier

    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature={temperature} must be a positive number")
    head = classifier(model)
    with torch.no_grad():
        head.weight /= temperature
        if head.bias is not None:
            head.bias /= temperature


def _binned(
    confidences: NDArray[np.floating], correct: NDArray[np.bool_], bins: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Count each bin's images, right answers and sum of confidences."""
    if len(confidences) != len(correct) or len(confidences) == 0:
        raise ValueError(f"{len(confidences)} confidences, {len(correct)} answers: wanted as many, and at least one")
    upper = np.arange(1, bins) / bins
    place = np.searchsorted(upper, confidences, side="left")  # the edge itself belongs to the bin below
    return (
        np.bincount(place, minlength=bins).astype(np.int64),
        np.bincount(place, weights=correct, minlength=bins).astype(np.float64),
        np.bincount(place, weights=confidences, minlength=bins).astype(np.float64),
    )


def _of_labels(log_p: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return log_p[np.arange(len(labels)), labels]
