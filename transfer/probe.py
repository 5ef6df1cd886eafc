"""The linear probe: logistic regression on frozen features, its regularization chosen on validation images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transfer.loader import Progress
from zoo.classifier import classifier_name, reset_classifier_

INVERSE_REGULARIZATIONS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
FOLDS = 5  # where there are no validation images


@dataclass(frozen=True)
class Probe:
    """A linear classifier on raw features: logits = features @ weight.T + bias."""

    weight: NDArray[np.float32]  # (K, F)
    bias: NDArray[np.float32]  # (K,)
    inverse_regularization: float
    val_top1: float  # on the validation images, or cross-validated

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return features @ self.weight.T + self.bias


def fit_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    classes: int,
    val: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Probe:
    """Multinomial logistic regression on standardized (N, F) features, the standardization folded into the weights.

    Without validation data the regularization is chosen by stratified cross-validation, or, where a class has fewer
    than two images, is the middle one.
    """
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    standardized = (features - mean) / std
    choices = []
    for done, inverse in enumerate(INVERSE_REGULARIZATIONS, start=1):
        if val is not None:
            score = float((_fit(standardized, labels, inverse).predict((val[0] - mean) / std) == val[1]).mean())
        else:
            score = _cross_validated(standardized, labels, inverse, seed)
        choices.append((score, -inverse))  # of equals the more regularized
        if progress is not None:
            progress("probe", done, len(INVERSE_REGULARIZATIONS), f"C={inverse:g} val {score:.1%}")
    val_top1, negative = max(choices)
    solution = _fit(standardized, labels, -negative)
    coefficients, intercept = solution.coef_, solution.intercept_
    if len(intercept) == 1:  # scikit-learn gives two classes one row of logits
        coefficients, intercept = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-1, 1]) * intercept / 2
    weight = np.zeros((classes, features.shape[1]), dtype=np.float32)
    bias = np.full(classes, -20.0, dtype=np.float32)  # a class without training images is never chosen
    weight[solution.classes_] = coefficients / std
    bias[solution.classes_] = intercept - (coefficients / std) @ mean
    return Probe(weight, bias, -negative, val_top1)


def set_classifier_(model: nn.Module, probe: Probe) -> None:
    """Give the model the probe as its classifier."""
    reset_classifier_(model, len(probe.bias))
    head = model.get_submodule(classifier_name(model))
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(probe.weight))
        head.bias.copy_(torch.from_numpy(probe.bias))


def _fit(features: NDArray[np.float32], labels: NDArray[np.int64], inverse: float):  # type: ignore[no-untyped-def]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 steps are near enough to choose and to start from
        return LogisticRegression(C=inverse, max_iter=300).fit(features, labels)


def _cross_validated(features: NDArray[np.float32], labels: NDArray[np.int64], inverse: float, seed: int) -> float:
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels)
    smallest = int(counts[counts > 0].min())
    if smallest < 2:
        return -abs(np.log10(inverse) + 2)
    folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=seed)
    scores = [
        (_fit(features[train], labels[train], inverse).predict(features[test]) == labels[test]).mean()
        for train, test in folds.split(features, labels)
    ]
    return float(np.mean(scores))
