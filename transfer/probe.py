"""The linear probe: logistic regression on frozen features, its regularization chosen on validation images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer.loader import LabelledPixels, Progress
from zoo.classifier import classifier, reset_classifier_
from zoo.predictor import TorchPredictor
from zoo.preprocess import Preprocess

INVERSE_REGULARIZATIONS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
FOLDS = 3  # where there are no validation images
PATH_STEPS = 50  # of L-BFGS for each point of the path, which starts from its neighbour
STEPS = 300
# A feature that hardly varies on these images is not blown up beyond 1 / DEAD times the average one: its weight would
# be a thousand times the others', and an int8 classifier would have no steps left for them.
DEAD = 0.1

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


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
    val: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Probe:
    """Multinomial logistic regression on standardized (N, F) features, the standardization folded into the weights.

    Without validation data the regularization is chosen by stratified cross-validation, or, where a class has fewer
    than two images, is the middle one.
    """
    # in float64: the mean of a feature that never changes is that feature, to the bit, and it gets no weight
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    std = np.maximum(std, DEAD * std.mean()) + 1e-6
    standardized = ((features - mean) / std).astype(np.float32)
    if val is not None:
        scores = _path(standardized, labels, ((val[0] - mean) / std).astype(np.float32), val[1], progress)
    else:
        scores = _cross_validated(standardized, labels, seed, progress)
    # of equals the more regularized, which comes first
    val_top1, inverse = max(zip(scores, INVERSE_REGULARIZATIONS, strict=True), key=lambda choice: choice[0])
    solution = _logistic(inverse, STEPS).fit(standardized, labels)
    coefficients, intercept = solution.coef_, solution.intercept_
    if len(intercept) == 1:  # scikit-learn gives two classes one row of logits
        coefficients, intercept = np.stack([-coefficients[0], coefficients[0]]) / 2, np.array([-1, 1]) * intercept / 2
    weight = coefficients / std
    bias = intercept - weight @ mean
    return Probe(weight.astype(np.float32), bias.astype(np.float32), inverse, val_top1)


def set_classifier_(model: nn.Module, probe: Probe) -> None:
    """Give the model the probe as its classifier; one without a bias takes the weights alone."""
    reset_classifier_(model, len(probe.bias))
    head = classifier(model)
    weight, bias = torch.from_numpy(probe.weight), torch.from_numpy(probe.bias)
    with torch.no_grad():
        head.weight.copy_(weight.view_as(head.weight))
        if head.bias is not None:
            head.bias.copy_(bias)


def lift_classifier_(model: nn.Module, data: LabelledPixels, preprocess: Preprocess) -> None:
    """Raise the biases of a convolutional classifier, all alike, until no training image gives a negative output.

    SqueezeNet puts a ReLU between it and the pooling, and a probe's logits are as often negative. Adding the same to
    all of them changes no probability, and then the ReLU does nothing.
    """
    head = classifier(model)
    assert head.bias is not None
    lowest = torch.zeros(())

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal lowest
        lowest = torch.minimum(lowest, output.min())

    handle = head.register_forward_hook(note)
    predictor = TorchPredictor(model.eval(), preprocess, None)
    try:
        predictor.logits(data.pixels)
    finally:
        handle.remove()
    with torch.no_grad():
        head.bias -= lowest.clone()


def _logistic(inverse: float, steps: int):  # type: ignore[no-untyped-def]
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=inverse, max_iter=steps, tol=1e-3, warm_start=True)


def _path(
    features: Features, labels: Labels, val_features: Features, val_labels: Labels, progress: Progress | None
) -> list[float]:
    """Validation accuracy for each regularization, strongest first, each solution starting from the one before."""
    from sklearn.exceptions import ConvergenceWarning

    model = _logistic(INVERSE_REGULARIZATIONS[0], PATH_STEPS)
    scores = []
    for done, inverse in enumerate(INVERSE_REGULARIZATIONS, start=1):
        model.set_params(C=inverse)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near enough to choose by
            model.fit(features, labels)
        scores.append(float((model.predict(val_features) == val_labels).mean()))
        if progress is not None:
            progress("probe", done, len(INVERSE_REGULARIZATIONS), f"C={inverse:g} val {scores[-1]:.1%}")
    return scores


def _cross_validated(features: Features, labels: Labels, seed: int, progress: Progress | None) -> list[float]:
    from sklearn.model_selection import StratifiedKFold

    counts = np.bincount(labels)
    smallest = int(counts[counts > 0].min())
    if smallest < 2:  # nothing to choose by: the middle one
        middle = len(INVERSE_REGULARIZATIONS) // 2
        return [float(i == middle) for i in range(len(INVERSE_REGULARIZATIONS))]
    folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=seed)
    paths = [
        _path(features[train], labels[train], features[test], labels[test], progress)
        for train, test in folds.split(features, labels)
    ]
    return [float(score) for score in np.mean(paths, axis=0)]
