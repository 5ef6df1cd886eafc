"""The probe against plain scikit-learn on the same features, and as the classifier of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from transfer.data.loader import LabelledPixels
from transfer.frozen import probe as module
from transfer.frozen.features import frozen_features
from transfer.frozen.logistic import logits, principal, solve
from transfer.frozen.probe import (
    ALPHA_UNCHOSEN,
    ALPHAS,
    FOLDS_OF_FEW,
    fit_probe,
    lift_classifier_,
    set_classifier_,
    stratified_folds,
)
from zoo.classifier import features as classifier_inputs
from zoo.create import create_model
from zoo.models import squeezenet
from zoo.models.lenet import TINY
from zoo.preprocess import Preprocess


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def digits(classes=10, count=700):
    bunch = load_digits()
    chosen = np.flatnonzero(bunch.target < classes)[:count]
    features, labels = bunch.data[chosen].astype(np.float32), bunch.target[chosen].astype(np.int64)
    cut = 2 * len(labels) // 3
    return (features[:cut], labels[:cut]), (features[cut:], labels[cut:])


def moments(features):
    """Mean and standard deviation, the latter not below a tenth of the average one; float64, or scikit-learn solves in
    single precision too."""
    std = features.std(axis=0, dtype=np.float64)
    return features.mean(axis=0, dtype=np.float64), np.maximum(std, 0.1 * std.mean())


def peer(count, alpha, classes, tol=1e-10):
    """scikit-learn's name for the same penalty; its one row of logits for two classes is penalized twice as much."""
    inverse = 1 / (alpha * count) * (2 if classes == 2 else 1)
    return LogisticRegression(C=inverse, max_iter=5000, tol=tol)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("classes", [10, 3, 2])
def test_probabilities_are_scikit_learns(classes):
    train, val = digits(classes)
    probe = fit_probe(*train, val=val)
    mean, std = moments(train[0])
    expected = peer(len(train[1]), probe.alpha, classes).fit((train[0] - mean) / std, train[1])
    found = softmax(probe.logits(val[0]))
    assert probe.weight.shape == (classes, 64)
    differences = np.abs(found - expected.predict_proba((val[0] - mean) / std))
    assert differences.mean() < 2e-4  # a small alpha and single precision
    assert differences.max() < 1e-2
    if classes > 2:
        np.testing.assert_allclose(probe.weight * std, expected.coef_, atol=1e-2 * np.abs(expected.coef_).max())
    assert probe.val_top1 == pytest.approx((found.argmax(1) == val[1]).mean())
    assert probe.val_top1 > 0.85


@pytest.mark.parametrize("alpha", [3.0, 0.1, 1e-3])
@pytest.mark.parametrize("shape", [(300, 20), (40, 200)], ids=["more images", "more features"])
def test_solution_is_scikit_learns(alpha, shape):
    """In both shapes: with fewer images than features it is found in the span of the images."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=shape).astype(np.float32) * np.geomspace(5, 0.05, shape[1], dtype=np.float32)
    labels = rng.integers(0, 4, shape[0])
    turned = principal(rows)
    np.testing.assert_allclose(turned.values @ turned.axes.T, rows, atol=1e-4)
    weights = np.full((shape[0], 1), 1 / shape[0], dtype=np.float32)
    (found,) = solve(turned, labels, weights, classes=4, alpha=alpha, tolerance=1e-4 * alpha, steps=400)
    expected = peer(shape[0], alpha, 4).fit(rows.astype(np.float64), labels)
    answers = softmax(logits(turned.values, found[None])[:, 0])
    assert np.abs(answers - expected.predict_proba(rows.astype(np.float64))).max() < 1e-3
    coefficients = found[:, :-1] @ turned.axes.T
    np.testing.assert_allclose(coefficients, expected.coef_, atol=1e-2 * np.abs(expected.coef_).max())


def test_problems_side_by_side_are_those_one_by_one():
    (features, labels), _ = digits(4, 200)
    rows = principal(StandardScaler().fit_transform(features).astype(np.float32))
    folds = stratified_folds(labels)
    inside = folds[:, None] != np.arange(FOLDS_OF_FEW)
    weights = (inside / inside.sum(axis=0)).astype(np.float32)
    together = solve(rows, labels, weights, classes=4, alpha=0.1, tolerance=1e-5, steps=400)
    answers = softmax(logits(rows.values, together)[:, 2])
    kept = folds != 2
    standardized = StandardScaler().fit_transform(features)
    expected = peer(kept.sum(), 0.1, 4).fit(standardized[kept], labels[kept]).predict_proba(standardized)
    assert np.abs(answers - expected).max() < 2e-3


def noisy(count):
    """Digits and 400 features of noise, which a weakly regularized model believes: the choice has to matter."""
    train, val = digits()
    noise = np.random.default_rng(0).normal(size=(len(train[1]) + len(val[1]), 400)).astype(np.float32)
    train = (np.hstack([train[0], noise[: len(train[1])]])[:count], train[1][:count])
    return train, (np.hstack([val[0], noise[-len(val[1]) :]]), val[1])


def test_regularization_is_the_best_in_cross_validation():
    train, val = noisy(150)
    probe = fit_probe(*train, val=val)
    mean, std = moments(train[0])
    standardized = (train[0] - mean) / std
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    losses, accuracies = {}, {}
    for alpha in ALPHAS:
        model = peer(0.8 * len(train[1]), alpha, 10, tol=1e-3)
        held_out = cross_val_predict(model, standardized, train[1], cv=folds, method="predict_proba")
        losses[alpha] = cross_entropy(held_out, train[1])
        accuracies[alpha] = (held_out.argmax(1) == train[1]).mean()
    assert max(losses.values()) > 1.2 * min(losses.values())
    assert losses[probe.alpha] < 1.03 * min(losses.values())  # by folds of its own
    assert probe.cross_validated_top1 == pytest.approx(accuracies[probe.alpha], abs=0.05)


def test_validation_images_choose_nothing():
    train, val = noisy(150)
    probe = fit_probe(*train, val=val)
    blind = fit_probe(*train)
    wrong = fit_probe(*train, val=(val[0], (val[1] + 1) % 10))
    assert blind.val_top1 is None
    assert wrong.val_top1 < 0.2 < probe.val_top1
    for other in (blind, wrong):
        assert other.alpha == probe.alpha
        np.testing.assert_array_equal(other.weight, probe.weight)


def test_second_probe_is_the_first_and_solves_nothing(monkeypatch):
    train, val = digits(3, 150)
    first = fit_probe(*train, val=val, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "solve", None)
        second = fit_probe(np.array(train[0]), train[1].copy(), val=val, seed=1)
    assert second.weight.tobytes() == first.weight.tobytes()
    assert second.bias.tobytes() == first.bias.tobytes()
    assert (second.alpha, second.cross_validated_top1, second.val_top1) == (
        first.alpha,
        first.cross_validated_top1,
        first.val_top1,
    )
    solved = []
    real = module.solve
    monkeypatch.setattr(module, "solve", lambda *a, **k: (solved.append(1), real(*a, **k))[1])
    for features, labels, more in (
        (train[0], train[1], {"seed": 2}),
        (train[0], train[1], {"classes": 4}),
        (train[0], train[1], {"groups": [f"{i // 2}" for i in range(len(train[1]))]}),
        (train[0], 2 - train[1], {}),
        (train[0] + 1, train[1], {}),
    ):
        solved.clear()
        fit_probe(features, labels, **{"seed": 1, **more})
        assert solved, more


def test_one_image_a_class_is_enough():
    (features, labels), _ = digits(2)
    first = [int(np.flatnonzero(labels == label)[0]) for label in (0, 1)]
    probe = fit_probe(features[first], labels[first])
    assert probe.logits(features[first]).argmax(1).tolist() == [0, 1]
    assert (probe.alpha, probe.cross_validated_top1) == (ALPHA_UNCHOSEN, None)


def test_class_of_one_image_does_not_choose():
    """No fold can hold it out and know it; the others choose as if it were not there."""
    (features, labels), _ = digits(4)
    three = labels < 3
    lone = np.flatnonzero(labels == 3)[:1]
    chosen = np.concatenate([np.flatnonzero(three), lone])
    probe = fit_probe(features[chosen], labels[chosen])
    assert probe.cross_validated_top1 > 0.95
    assert probe.weight.shape[0] == 4
    assert probe.logits(features[lone]).argmax() == 3


def test_class_without_images():
    (features, labels), _ = digits(3)
    probe = fit_probe(features, labels, classes=5)
    assert probe.weight.shape[0] == 5
    assert probe.top1(features, labels) > 0.95
    assert set(probe.logits(features).argmax(1)) == {0, 1, 2}


def test_feature_that_never_changes_gets_no_weight():
    (features, labels), _ = digits(3, 120)
    for value in (0.0, 3.3, -1234.56):
        constant = np.full((len(features), 1), value, dtype=np.float32)
        probe = fit_probe(np.hstack([features, constant]), labels)
        assert np.abs(probe.weight[:, -1]).max() < 1e-3


def test_folds_deal_each_class_evenly():
    labels = np.random.default_rng(0).choice(7, 500, p=np.arange(1, 8) / 28)
    folds = stratified_folds(labels, seed=3)
    table = np.zeros((7, FOLDS_OF_FEW), dtype=int)
    np.add.at(table, (labels, folds), 1)
    assert (table.max(axis=1) - table.min(axis=1)).max() <= 1
    assert np.ptp(np.bincount(folds)) <= 1
    np.testing.assert_array_equal(stratified_folds(labels, seed=3), folds)
    assert (stratified_folds(labels, seed=4) != folds).any()


def test_copies_of_one_image_stay_in_one_fold():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 40)
    groups = [f"{label}/{rng.integers(15)}" for label in labels]
    folds = stratified_folds(labels, groups)
    for group in set(groups):
        assert len({int(fold) for fold, name in zip(folds, groups, strict=True) if name == group}) == 1
    assert len(set(folds.tolist())) == FOLDS_OF_FEW


def test_many_images_need_fewer_folds(monkeypatch):
    (features, labels), _ = digits(3)
    told = []
    monkeypatch.setattr(module, "HELD_OUT", 20)
    weights = []
    real = module.solve
    monkeypatch.setattr(module, "solve", lambda *a, **k: (weights.append(a[2].shape[1]), real(*a, **k))[1])
    probe = fit_probe(features, labels, progress=lambda *line: told.append(line))
    assert set(weights) == {1}
    assert probe.cross_validated_top1 > 0.9
    assert told[-1][:3] == ("probe", len(ALPHAS), len(ALPHAS))


def test_probe_becomes_the_networks_classifier():
    torch.manual_seed(0)
    model = create_model("lenet5", **TINY["lenet5"]).eval()
    images = torch.randn(60, 1, 28, 28)
    with torch.no_grad():
        found = classifier_inputs(model, images).numpy()
        labels = (found[:, 0] > np.median(found[:, 0])).astype(np.int64)
        probe = fit_probe(found, labels)
        set_classifier_(model, probe)
        np.testing.assert_allclose(model(images).numpy(), probe.logits(found), rtol=1e-4, atol=1e-4)
    assert model.num_classes == 2


def test_a_relu_after_the_classifier_does_not_hide_the_probe():
    """SqueezeNet's classifier is a convolution, then ReLU, then pooling."""
    torch.manual_seed(0)
    model = create_model("squeezenet1_1", **squeezenet.TINY["squeezenet1_1"]).eval()
    preprocess, rng = Preprocess(size=(64, 64)), np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    data = LabelledPixels(images, rng.integers(0, 3, 40))
    features = frozen_features(model, data, preprocess)
    probe = fit_probe(features, data.labels, val=(features, data.labels))
    assert (probe.logits(features) < 0).mean() > 0.2
    set_classifier_(model, probe)
    lift_classifier_(model, data, preprocess)
    with torch.no_grad():
        logits = model(torch.from_numpy(preprocess.normalize(images))).numpy()
    np.testing.assert_allclose(softmax(logits), softmax(probe.logits(features)), atol=1e-4)
