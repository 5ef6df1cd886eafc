"""Prototypes against loops that say what they mean, one image and one class at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine
from sklearn.datasets import load_digits

from transfer.frozen.probe import set_classifier_
from transfer.frozen.prototype import SCALES, UNCHOSEN_SCALE, fit_prototype
from zoo.classifier import features as classifier_inputs
from zoo.create import create_model
from zoo.models.lenet import TINY


def digits(count):
    bunch = load_digits()
    features, labels = bunch.data.astype(np.float32), bunch.target.astype(np.int64)
    return (features[:count], labels[:count]), (features[count:], labels[count:])


def unit(vector):
    return vector / np.linalg.norm(vector)


def nearest_by_angle(train, queries, classes):
    """CL2N, spelled out: centre, normalize, average, and take the class mean at the smallest angle."""
    features, labels = (array.astype(np.float64) if array.ndim > 1 else array for array in train)
    mean = features.mean(axis=0)
    means = []
    for k in range(classes):
        means.append(np.mean([unit(f - mean) for f, label in zip(features, labels, strict=True) if label == k], axis=0))
    return [int(np.argmin([cosine(unit(query - mean), p) for p in means])) for query in queries.astype(np.float64)]


@pytest.mark.parametrize("count", [30, 200])
def test_answers_are_those_of_the_nearest_class_mean(count):
    train, (queries, labels) = digits(count)
    found = fit_prototype(*train, classes=10).logits(queries).argmax(axis=1)
    np.testing.assert_array_equal(found, nearest_by_angle(train, queries, 10))
    assert (found == labels).mean() > 0.75


def test_leaving_out_is_leaving_out():
    (features, labels), _ = digits(60)
    found = fit_prototype(features, labels, classes=10)
    mean = features.astype(np.float64).mean(axis=0)
    images = [unit(f - mean) for f in features.astype(np.float64)]
    cosines = np.zeros((60, 10))
    for i in range(60):
        for k in range(10):
            members = [images[j] for j in range(60) if labels[j] == k and j != i]
            cosines[i, k] = 1 - cosine(images[i], np.mean(members, axis=0))
    assert found.left_out_top1 == pytest.approx((cosines.argmax(1) == labels).mean())

    def loss(scale):
        powers = np.exp(scale * cosines)
        return -np.log(powers[np.arange(60), labels] / powers.sum(axis=1)).mean()

    assert found.scale == min(SCALES, key=loss)
    assert SCALES[0] < found.scale < SCALES[-1]


def test_probabilities_are_sensible():
    """The scale that the training images chose is near the best one for images that nobody has seen."""
    train, (queries, labels) = digits(800)
    found = fit_prototype(*train, classes=10)

    def loss(factor):
        scores = factor * found.logits(queries).astype(np.float64)
        return (np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]).mean()

    assert loss(1) < 1.1 * min(loss(2**exponent) for exponent in range(-4, 5))


def test_one_shot():
    (features, labels), (queries, answers) = digits(200)
    first = np.array([np.flatnonzero(labels == k)[0] for k in range(10)])
    found = fit_prototype(features[first], labels[first], classes=10)
    assert (found.scale, found.left_out_top1) == (UNCHOSEN_SCALE, None)
    assert found.top1(features[first], labels[first]) == 1
    assert found.top1(queries, answers) > 0.5
    assert np.ptp(found.logits(queries), axis=1).mean() < 2 * UNCHOSEN_SCALE  # cosines, scaled


def test_class_of_one_image_is_not_judged():
    (features, labels), _ = digits(100)
    chosen = np.concatenate([np.flatnonzero(labels < 3), np.flatnonzero(labels == 3)[:1]])
    found = fit_prototype(features[chosen], labels[chosen], classes=4)
    assert found.left_out_top1 > 0.9
    assert found.logits(features[chosen[-1:]]).argmax() == 3


def test_copies_do_not_vouch_for_each_other():
    """Each image five times over, as one group: judged and scaled as if it were there once."""
    (features, labels), _ = digits(60)
    once = fit_prototype(features, labels, classes=10)
    tiled = np.tile(features, (5, 1)), np.tile(labels, 5)
    groups = [f"image {i % 60}" for i in range(300)]
    grouped, trusting = fit_prototype(*tiled, classes=10, groups=groups), fit_prototype(*tiled, classes=10)
    assert (grouped.scale, grouped.left_out_top1) == (once.scale, once.left_out_top1)
    assert trusting.left_out_top1 > once.left_out_top1
    np.testing.assert_allclose(grouped.weight, once.weight, rtol=1e-4, atol=1e-5)


def test_blocks_count_alike():
    """A block in other units changes nothing."""
    (features, labels), (queries, _) = digits(100)
    blocks, units = (16, 48), np.repeat([1.0, 1000.0], [16, 48]).astype(np.float32)
    expected = fit_prototype(features, labels, classes=10, blocks=blocks).logits(queries)
    found = fit_prototype(features * units, labels, classes=10, blocks=blocks).logits(queries * units)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    alone = fit_prototype(features * units, labels, classes=10).logits(queries * units)
    assert (alone.argmax(1) != expected.argmax(1)).any()


def test_blocks_of_another_width():
    (features, labels), _ = digits(50)
    with pytest.raises(ValueError, match=r"blocks=\(16, 16\) add up to 32, not to the 64 features"):
        fit_prototype(features, labels, classes=10, blocks=(16, 16))


def test_class_without_an_image():
    (features, labels), _ = digits(50)
    with pytest.raises(ValueError, match="class 10 of 11 has no image"):
        fit_prototype(features, labels, classes=11)


def test_features_that_are_all_alike():
    found = fit_prototype(np.ones((4, 8), dtype=np.float32), np.array([0, 0, 1, 1]), classes=2)
    assert np.isfinite(found.weight).all()
    assert np.isfinite(found.bias).all()


def test_prototypes_become_the_networks_classifier():
    torch.manual_seed(0)
    model = create_model("lenet5", **TINY["lenet5"]).eval()
    images = torch.randn(30, 1, 28, 28)
    with torch.no_grad():
        features = classifier_inputs(model, images).numpy()
        found = fit_prototype(features, np.arange(30) % 3, classes=3)
        set_classifier_(model, found)
        np.testing.assert_allclose(model(images).numpy(), found.logits(features), rtol=1e-4, atol=1e-4)
