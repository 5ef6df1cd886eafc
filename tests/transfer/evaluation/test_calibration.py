"""Calibration against the paper's definitions written out as loops, brute force, and answers known beforehand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfer.evaluation.calibration import (
    calibration_error,
    chance_error,
    fit_temperature,
    fold_temperature_,
    negative_log_likelihood,
    reliability,
)
from zoo.classifier import auxiliary_names, classifier
from zoo.create import create_model
from zoo.models import googlenet, resnet, squeezenet


def drawn(count, classes, seed=0, scale=2.0):
    """Logits, and labels drawn with their probabilities: a calibrated model."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)) * scale
    gumbel = rng.gumbel(size=logits.shape)
    return logits, (logits + gumbel).argmax(axis=1)


def softmax(logits):
    return torch.from_numpy(logits).softmax(1).numpy()


def naive_error(confidences, correct, bins):
    """Guo et al. 2017, eq. 3: the m-th of M bins holds the confidences in ((m - 1) / M, m / M]."""
    error = 0.0
    for m in range(1, bins + 1):
        members = [i for i, c in enumerate(confidences) if (m - 1) / bins < c <= m / bins]
        if members:
            accuracy = sum(correct[i] for i in members) / len(members)
            confidence = sum(confidences[i] for i in members) / len(members)
            error += len(members) / len(confidences) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("bins", [15, 10, 1])
def test_calibration_error_is_the_papers(bins):
    rng = np.random.default_rng(bins)
    confidences = np.concatenate([rng.uniform(0.1, 1, 200), np.arange(1, 16) / 15, [1.0]])
    correct = rng.random(len(confidences)) < confidences**2
    found = calibration_error(confidences, correct, bins=bins)
    assert found == pytest.approx(naive_error(confidences.tolist(), correct.tolist(), bins), abs=1e-12)
    table = reliability(confidences, correct, bins=bins)
    assert [line.n for line in table] == [
        int(((confidences > line.low) & (confidences <= line.high)).sum()) for line in table
    ]
    assert sum(line.correct for line in table) == correct.sum()
    assert sum(line.n * line.confidence for line in table) == pytest.approx(confidences.sum())


def test_calibration_error_of_a_model_that_says_80_and_is_right_in_60():
    assert calibration_error(np.full(50, 0.8), np.arange(50) < 30) == pytest.approx(0.2)


def test_chance_error_is_what_calibrated_models_stay_under_19_times_of_20():
    confidences = softmax(drawn(300, 5)[0]).max(axis=1)
    limit, rng = chance_error(confidences), np.random.default_rng(1)
    errors = [calibration_error(confidences, rng.random(300) < confidences) for _ in range(400)]
    assert 0.90 < np.mean(np.array(errors) <= limit) < 0.99
    assert chance_error(np.tile(confidences, 16)) == pytest.approx(limit / 4, rel=0.3)  # as 1 / sqrt(n)


def test_negative_log_likelihood_is_torchs_cross_entropy():
    logits, labels = drawn(100, 7)
    expected = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_a_calibrated_models_logits_times_a_factor_give_that_factor(scale):
    logits, labels = drawn(20_000, 6)
    found = fit_temperature(scale * logits, labels)
    assert found == pytest.approx(scale, rel=0.03)
    assert found == pytest.approx(scale * fit_temperature(logits, labels), rel=1e-4)
    before, after = (
        calibration_error(p.max(axis=1), p.argmax(axis=1) == labels)
        for p in (softmax(scale * logits), softmax(scale * logits / found))
    )
    assert after < 0.02
    assert after < before / 3 or scale == 1.0


def test_it_is_the_temperature_that_brute_force_finds():
    logits, labels = drawn(400, 4, seed=2)
    logits *= 2.5
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 6001))
    likelihoods = [F.cross_entropy(torch.from_numpy(logits / t), torch.from_numpy(labels)).item() for t in grid]
    assert fit_temperature(logits, labels) == pytest.approx(grid[np.argmin(likelihoods)], rel=0.01)


@pytest.mark.parametrize("count", [1, 20, 500])
@pytest.mark.parametrize("classes", [2, 10])
def test_images_all_answered_right_do_not_make_it_certain(classes, count):
    """With one margin for all, the confidence of the best T is the share of right ones with one random label more."""
    labels = np.arange(count) % classes
    logits = 3.0 * np.eye(classes)[labels]
    confidence = softmax(logits / fit_temperature(logits, labels)).max(axis=1)
    assert confidence == pytest.approx((count + 1 / classes) / (count + 1), abs=1e-4)


def test_it_stays_in_its_bounds():
    labels = np.zeros(50, dtype=np.int64)
    wrong, tiny = np.tile([0.0, 50.0], (50, 1)), np.tile([1e-4, 0.0], (50, 1))
    assert fit_temperature(wrong, labels) == pytest.approx(20, rel=1e-4)
    assert fit_temperature(tiny, labels) == pytest.approx(0.05, rel=1e-4)
    assert fit_temperature(np.zeros((50, 2)), labels) == 1.0  # nothing to choose by
    with pytest.raises(ValueError, match="logits of 0 images"):
        fit_temperature(np.empty((0, 3)), np.empty(0, dtype=np.int64))


# SqueezeNet ends in a 1x1 convolution, ReLU and pooling; GoogLeNet has heads for training only
@pytest.mark.parametrize("module", [resnet, squeezenet, googlenet], ids=lambda module: module.__name__)
def test_folding_divides_the_logits(module):
    torch.manual_seed(0)
    name, arguments = next(iter(module.TINY.items()))
    model = create_model(name, **arguments).eval()
    for parameter in classifier(model).parameters():  # a fresh bias is 0
        nn.init.normal_(parameter)
    before = copy.deepcopy(model)
    fold_temperature_(model, 2.7)
    images = torch.rand(4, next(model.parameters()).shape[1], 64, 64)
    with torch.no_grad():
        expected, found = before(images), model(images)
    torch.testing.assert_close(found, expected / 2.7, rtol=1e-5, atol=1e-5)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    touched = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before.state_dict()[key])}
    assert len(touched) == 2  # weight and bias of the one layer: no auxiliary head
    assert not any(key.startswith(tuple(auxiliary_names(model)) or "-") for key in touched)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="must be a positive number"):
        fold_temperature_(nn.Sequential(nn.Linear(3, 2)), temperature)
