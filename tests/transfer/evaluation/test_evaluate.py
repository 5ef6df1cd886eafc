"""An evaluation's figures against scikit-learn's and SciPy's, and against loops where they have none."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from transfer.data.loader import LabelledPixels
from transfer.evaluation.evaluate import Evaluation, evaluate_pixels
from zoo.errors import SlimzooError


def answers(classes, count=300, seed=0, without=()):
    """A mediocre model's answers; no image is of a class of `without`."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([i for i in range(classes) if i not in without], size=count)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1.5
    return Evaluation(labels, logits)


@pytest.mark.parametrize("classes", [2, 5, 6, 12])
def test_figures_are_scikit_learns(classes):
    found = answers(classes)
    labels, every = found.labels, list(range(classes))
    assert found.top1 == pytest.approx(metrics.accuracy_score(labels, found.predictions))
    assert found.balanced == pytest.approx(metrics.balanced_accuracy_score(labels, found.predictions))
    assert found.nll == pytest.approx(metrics.log_loss(labels, found.probabilities, labels=every))
    assert (found.confusion == metrics.confusion_matrix(labels, found.predictions, labels=every)).all()
    recalls = metrics.recall_score(labels, found.predictions, average=None, labels=every)
    scores = found.per_class([str(i) for i in every])
    assert [score.recall for score in scores] == pytest.approx(recalls.tolist())
    if classes > 5:
        expected = metrics.top_k_accuracy_score(labels, found.logits, k=5, labels=every)
        assert found.top5 == pytest.approx(expected)
    else:
        assert (found.top5, found.top5_ci) == (None, None)


def test_intervals_are_scipys_and_hold_the_figure():
    found = answers(8)
    for score in found.per_class("abcdefgh"):
        reference = binomtest(round(score.recall * score.n), score.n).proportion_ci(0.95, method="wilson")
        assert score.ci == pytest.approx((reference.low, reference.high), abs=1e-12)
    reference = binomtest(round(found.top5 * found.n), found.n).proportion_ci(0.95, method="wilson")
    assert found.top5_ci == pytest.approx((reference.low, reference.high), abs=1e-12)
    for figure, (low, high) in ((found.top1, found.top1_ci), (found.balanced, found.balanced_ci)):
        assert low < figure < high


def test_a_class_without_images_counts_for_nothing():
    found, names = answers(7, without=(2, 6)), tuple("abcdefg")
    scores = found.per_class(names)
    assert [score.name for score in scores if score.recall is None] == ["c", "g"]
    assert all((score.n, score.ci) == (0, None) for score in scores if score.recall is None)
    assert found.balanced == pytest.approx(np.mean([score.recall for score in scores if score.n]))


def test_of_equal_logits_the_first_class_comes_first():
    same = Evaluation(np.arange(7), np.zeros((7, 7), dtype=np.float32))  # a dead network knows nothing
    assert same.top1 == pytest.approx(1 / 7)
    assert same.top5 == pytest.approx(5 / 7)
    rng = np.random.default_rng(0)
    coarse = Evaluation(rng.integers(0, 9, 200), rng.integers(0, 3, (200, 9)).astype(np.float32))
    first_five = np.argsort(-coarse.logits, axis=1, kind="stable")[:, :5]
    assert coarse.top5 == np.mean([label in row for label, row in zip(coarse.labels, first_five, strict=True)])


@pytest.mark.parametrize("classes", [3, 9])
def test_a_record_is_json_and_says_the_same_again(classes):
    found = answers(classes)
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert list(record)[:3] == ["top1", "top1_ci", "n"]
    assert record["correct"] == "".join(str(int(right)) for right in found.labels == found.predictions)
    for name in ("top1", "top5", "balanced", "ece", "nll"):
        assert record[name] == (None if getattr(found, name) is None else pytest.approx(getattr(found, name), abs=1e-6))
    assert record["balanced_ci"] == pytest.approx(found.balanced_ci, abs=1e-6)


def test_huge_logits_make_no_infinities():
    found = Evaluation(np.array([0, 1]), np.array([[3e38, -3e38], [3e38, -3e38]], dtype=np.float32))
    assert found.confidences.tolist() == [1, 1]
    assert found.ece == pytest.approx(0.5)
    assert np.isfinite(found.nll)


def model_that_answers(logits):
    """A predictor: the first pixel of an image is its number."""
    return SimpleNamespace(logits=lambda pixels: logits[pixels[:, 0, 0, 0]], classes=None, preprocess=None)


def images(count):
    pixels = np.zeros((count, 2, 2, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    return pixels


def test_logits_of_all_batches_are_kept_in_order():
    expected, said = answers(4, count=150), []
    found = evaluate_pixels(
        model_that_answers(expected.logits),
        LabelledPixels(images(150), expected.labels),
        4,
        progress=lambda *step: said.append(step),
    )
    assert (found.logits == expected.logits).all()
    assert said[-1][1:3] == (150, 150)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused(bad):
    logits = answers(4, count=10).logits.copy()
    logits[[3, 7], 1] = bad
    with pytest.raises(SlimzooError, match="2 of 10 images with numbers that are not finite"):
        evaluate_pixels(model_that_answers(logits), LabelledPixels(images(10), np.zeros(10, dtype=np.int64)), 4)
