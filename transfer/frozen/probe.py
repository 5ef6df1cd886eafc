"""The linear probe: logistic regression on frozen features, its regularization chosen by cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer.data.cache import cached_array, content_key
from transfer.data.dataset import FEW_IMAGES
from transfer.data.loader import LabelledPixels
from transfer.evaluation.calibration import negative_log_likelihood
from transfer.frozen.logistic import Rows, logits, principal, solve
from zoo.classifier import classifier, reset_classifier_
from zoo.files.predictor import TorchPredictor
from zoo.preprocess import Preprocess
from zoo.progress import Progress

PROBE_VERSION = 2  # of all in this file and in logistic.py that a kept solution depends on
# Of the mean cross-entropy, so that they mean the same for 20 images and for 20,000; strongest first. Chosen were 1 on
# 5 emoji a class, 0.1 on 1,906 emoji, 0.001 on 1,078 digits of 64 pixels.
ALPHAS = tuple(10 ** (0.5 - step / 2) for step in range(10))  # 3.2 to 1e-4, two a decade
ALPHA_UNCHOSEN = 0.1  # where no class has two images to choose by
# A solution that has seen four images of five of a small class is a worse one. Of 16 small tasks, three times divided,
# accuracy out of 5 folds was 2.2 points below that of the whole's on new images, out of 10 folds 1.3, out of 20 1.8.
FOLDS, FOLDS_OF_FEW = 5, 10
HELD_OUT = 4000  # images are enough to choose by: beyond 20,000 images one fold is
# Of the gradient, as shares of alpha (a weaker penalty leaves a smaller loss, of which a fixed tolerance would be too
# much): cross-entropies on held-out images to 1%, near enough to choose by; final probabilities to 0.001.
PATH_TOLERANCE, PATH_STEPS = 1e-2, 60
TOLERANCE, STEPS = 1e-4, 400
# A feature that hardly varies on these images is not blown up beyond 1 / DEAD times the average one: its weight would
# be a thousand times the others', and an int8 classifier would have no steps left for them.
DEAD = 0.1
BLOCK = 4096  # rows in float64 at a time
UNASKED = -1  # of images that no fold asks; others are 1 where the answer is right, and 0

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LinearClassifier:
    """A linear classifier on raw features: logits = features @ weight.T + bias."""

    weight: NDArray[np.float32]  # (K, F)
    bias: NDArray[np.float32]  # (K,)

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return features @ self.weight.T + self.bias

    def top1(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        """Share of (N, F) features that are given their label."""
        return float((self.logits(features).argmax(axis=1) == labels).mean())


@dataclass(frozen=True)
class Probe(LinearClassifier):
    """
    Attributes:
        alpha: the regularization; scikit-learn's C is 1 / (alpha N).
        out_of_fold: (n,) at that alpha, which training images were answered right by a solution that had not seen them,
            of those that were asked; none where no class has two images.
        out_of_fold_loss: the mean cross-entropy of these answers in nats; NaN of none.
        val_top1: on the validation images; None where there are none. They chose nothing.
    """

    alpha: float
    out_of_fold: NDArray[np.bool_]
    out_of_fold_loss: float
    val_top1: float | None

    @property
    def cross_validated_top1(self) -> float | None:
        return float(self.out_of_fold.mean()) if len(self.out_of_fold) else None


def fit_probe(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    classes: int | None = None,
    val: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Probe:
    """Multinomial logistic regression on standardized (N, F) features, the standardization folded into the weights.

    The regularization is the one of least cross-entropy in stratified cross-validation on these features: it varies
    less from fold to fold than accuracy does, and asks for sensible probabilities. The solution is kept beside the
    features, by their content, and found again there.

    Args:
        labels: (N,) class indices.
        classes: how many there are; by default the labels' largest and one.
        val: features and labels to report an accuracy on; they stay clean for choosing between methods.
        groups: a name for each image: those of one name, which are alike, are never on both sides of a fold.
        seed: of the folds.
    """
    count = int(labels.max()) + 1 if classes is None else classes
    width = features.shape[1]
    key = content_key(
        repr((PROBE_VERSION, ALPHAS, folds_of(len(labels)), HELD_OUT, PATH_TOLERANCE, TOLERANCE, DEAD)),
        repr((seed, count, features.shape)),
        hashlib.sha256(np.ascontiguousarray(features).data).hexdigest(),
        hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest(),
        groups or (),
    )

    def make() -> Iterator[NDArray[np.float64]]:
        chosen, weight, bias = _fit(features, labels, count, groups, seed, progress)
        yield np.concatenate([[chosen.alpha, chosen.loss], chosen.right, weight.ravel(), bias])

    sizes = (1, 1, len(labels), count * width, count)
    kept = cached_array("probes", key, shape=(sum(sizes),), dtype=np.float64, make=make)
    alpha, loss, right, weight, bias = np.split(kept, np.cumsum(sizes)[:-1])
    weight, bias = weight.reshape(count, width).astype(np.float32), bias.astype(np.float32)
    val_top1 = None if val is None else LinearClassifier(weight, bias).top1(*val)
    return Probe(weight, bias, float(alpha[0]), right[right != UNASKED] == 1, float(loss[0]), val_top1)


def set_classifier_(model: nn.Module, linear: LinearClassifier) -> None:
    """Give the model this classifier; one without a bias takes the weights alone."""
    reset_classifier_(model, len(linear.bias))
    head = classifier(model)
    weight, bias = torch.from_numpy(linear.weight), torch.from_numpy(linear.bias)
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


@dataclass(frozen=True)
class _Chosen:
    """An alpha, the mean cross-entropy of answers out of fold at it, and (N,) which are right."""

    alpha: float
    loss: float
    right: NDArray[np.float64]


def _fit(
    features: Features, labels: Labels, classes: int, groups: Sequence[str] | None, seed: int, progress: Progress | None
) -> tuple[_Chosen, NDArray[np.float64], NDArray[np.float64]]:
    """What was chosen, and (K, F) weights and (K,) bias on raw features."""
    # in float64: the mean of a feature that never changes is that feature, to the bit, and it gets no weight
    mean = features.mean(axis=0, dtype=np.float64)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(features), BLOCK)]
    std = np.sqrt(sum(np.square(features[block] - mean).sum(axis=0) for block in blocks) / len(features))
    std = np.maximum(std, DEAD * std.mean()) + 1e-6
    standardized = np.empty(features.shape, dtype=np.float32)
    for block in blocks:
        standardized[block] = (features[block] - mean) / std
    rows = principal(standardized)
    chosen = _choose(rows, labels, classes, stratified_folds(labels, groups, seed=seed), progress)
    whole = np.full((len(labels), 1), 1 / len(labels), dtype=np.float32)
    (found,) = solve(
        rows, labels, whole, classes=classes, alpha=chosen.alpha, tolerance=TOLERANCE * chosen.alpha, steps=STEPS
    )
    weight = found[:, :-1] @ rows.axes.T.astype(np.float64) / std
    return chosen, weight, found[:, -1] - weight @ mean


def _choose(rows: Rows, labels: Labels, classes: int, folds: NDArray[np.int64], progress: Progress | None) -> _Chosen:
    """The alpha of least cross-entropy on held-out images."""
    used = _enough(folds)
    inside = folds[:, None] != np.arange(used)  # (N, J): trained on in each fold
    known = np.stack([np.bincount(labels[part], minlength=classes) > 0 for part in inside.T])  # (J, K)
    held = np.flatnonzero((folds < used) & known[np.minimum(folds, used - 1), labels])
    right = np.full(len(labels), float(UNASKED))
    if not len(held):
        return _Chosen(ALPHA_UNCHOSEN, float("nan"), right)
    weights = (inside / inside.sum(axis=0)).astype(np.float32)
    chosen, best, solution = ALPHA_UNCHOSEN, float("inf"), None
    for done, alpha in enumerate(ALPHAS, start=1):
        solution = solve(
            rows,
            labels,
            weights,
            classes=classes,
            alpha=alpha,
            start=solution,
            tolerance=PATH_TOLERANCE * min(alpha, ALPHA_UNCHOSEN),
            steps=PATH_STEPS,
        )
        answers = logits(rows.values[held], solution)[np.arange(len(held)), folds[held]]
        loss = negative_log_likelihood(answers, labels[held])
        past = loss >= best  # over alpha it has one valley
        if not past:
            chosen, best = alpha, loss
            right[held] = answers.argmax(axis=1) == labels[held]
        if progress is not None:
            progress("probe", len(ALPHAS) if past else done, len(ALPHAS), f"cross-validated {right[held].mean():.1%}")
        if past:
            break
    return _Chosen(chosen, best, right)


def folds_of(images: int) -> int:
    return FOLDS_OF_FEW if images <= FEW_IMAGES else FOLDS


def stratified_folds(
    labels: NDArray[np.int64], groups: Sequence[str] | None = None, *, seed: int = 0
) -> NDArray[np.int64]:
    """(N,) numbers of folds: each class dealt out evenly, images of one group together (by its first's class)."""
    names = np.arange(len(labels)) if groups is None else np.asarray(groups)
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_class = order[np.argsort(labels[first][order], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    fold[by_class] = np.arange(len(first)) % folds_of(len(labels))  # a class begins where the one before it ended
    return fold[group]


def _enough(folds: NDArray[np.int64]) -> int:
    """How many of the folds hold enough images to choose by."""
    count = folds_of(len(folds))
    held = np.cumsum(np.bincount(folds, minlength=count))
    return min(count, int(np.searchsorted(held, HELD_OUT)) + 1)
