"""The probe against plain scikit-learn on the same features, and as the classifier of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transfer.features import frozen_features
from transfer.loader import LabelledPixels
from transfer.probe import INVERSE_REGULARIZATIONS, fit_probe, lift_classifier_, set_classifier_
from zoo import squeezenet
from zoo.classifier import features as classifier_inputs
from zoo.lenet import TINY
from zoo.preprocess import Preprocess
from zoo.registry import create_model


def digits(classes=10, count=700):
    bunch = load_digits()
    chosen = np.flatnonzero(bunch.target < classes)[:count]
    features, labels = bunch.data[chosen].astype(np.float32), bunch.target[chosen].astype(np.int64)
    cut = 2 * len(labels) // 3
    return (features[:cut], labels[:cut]), (features[cut:], labels[cut:])


def reference(features, labels, inverse):
    return make_pipeline(StandardScaler(), LogisticRegression(C=inverse, max_iter=5000, tol=1e-6)).fit(features, labels)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [10, 3, 2])
def test_probabilities_are_scikit_learns(classes):
    train, val = digits(classes)
    probe = fit_probe(*train, val=val)
    expected = reference(*train, probe.inverse_regularization).predict_proba(val[0])
    assert probe.weight.shape == (classes, 64)
    found = softmax(probe.logits(val[0]))  # of a solution near the optimum, since it is where training starts
    assert np.abs(found - expected).mean() < 0.01
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.98
    assert (probe.logits(val[0]).argmax(1) == val[1]).mean() > 0.85


def test_regularization_is_chosen_on_the_validation_images():
    train, val = digits()
    # noise that a weakly regularized model believes: the choice has to matter
    noise = np.random.default_rng(0).normal(size=(len(train[1]) + len(val[1]), 400)).astype(np.float32)
    train = (np.hstack([train[0], noise[: len(train[1])]])[:80], train[1][:80])
    val = (np.hstack([val[0], noise[-len(val[1]) :]]), val[1])
    accuracies = {c: reference(*train, c).score(*val) for c in INVERSE_REGULARIZATIONS}
    assert max(accuracies.values()) - min(accuracies.values()) > 0.02
    probe = fit_probe(*train, val=val)
    assert accuracies[probe.inverse_regularization] >= max(accuracies.values()) - 0.01
    assert probe.val_top1 == pytest.approx(accuracies[probe.inverse_regularization], abs=0.02)


def test_without_validation_images_it_is_cross_validated():
    train, test = digits(3)
    probe = fit_probe(*train, seed=1)
    assert probe.inverse_regularization in INVERSE_REGULARIZATIONS
    assert probe.val_top1 == pytest.approx((probe.logits(test[0]).argmax(1) == test[1]).mean(), abs=0.05)


def test_one_image_a_class_is_enough():
    (features, labels), _ = digits(2)
    first = [int(np.flatnonzero(labels == label)[0]) for label in (0, 1)]
    probe = fit_probe(features[first], labels[first])
    assert probe.logits(features[first]).argmax(1).tolist() == [0, 1]
    assert INVERSE_REGULARIZATIONS[0] < probe.inverse_regularization < INVERSE_REGULARIZATIONS[-1]


def test_feature_that_never_changes_gets_no_weight():
    (features, labels), _ = digits(3)
    for value in (0.0, 3.3, -1234.56):
        constant = np.full((len(features), 1), value, dtype=np.float32)
        probe = fit_probe(np.hstack([features, constant]), labels)
        assert np.abs(probe.weight[:, -1]).max() < 1e-3


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


def test_features_are_cached_by_weights_and_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    model, grey = create_model("lenet5", **TINY["lenet5"]), Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
    pixels = np.random.default_rng(0).integers(0, 256, (70, 28, 28, 1), dtype=np.uint8)
    data = LabelledPixels(pixels, np.zeros(70, dtype=np.int64))
    told: list[str] = []

    def progress(what, done, total, note):
        told.append(what)

    def ask(of=data):
        told.clear()
        return frozen_features(model, of, grey, progress=progress)

    with torch.no_grad():
        expected = classifier_inputs(model.eval(), torch.from_numpy(grey.normalize(pixels))).numpy()
    first = ask()
    assert told
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ask(), first)
    assert not told  # from the disk
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] += 0.5
    assert not np.array_equal(ask(), first)
    assert told
    other = pixels.copy()
    other[0, 0, 0] ^= 255
    ask(LabelledPixels(other, data.labels))
    assert told
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(file.read_bytes()[:50])  # a full disk
    np.testing.assert_array_equal(ask(), frozen_features(model, data, grey))
    monkeypatch.setenv("SLIMZOO_CACHE", "/dev/null/nowhere")
    assert len(ask()) == 70


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
