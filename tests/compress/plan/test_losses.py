"""What a candidate is expected to lose, by few images and by how far all answers moved."""

from __future__ import annotations

import random
from functools import partial

import pytest

from compress.plan.losses import drop_between, expected_loss, images_needed, nats_between
from transfer.evaluation.statistics import PairedDrop

METRICS = ("top1", "balanced")


def test_balanced_losses_are_of_classes_and_not_of_images():
    """Nine images of a common class and one of a rare one, which is lost: half of the balanced accuracy."""
    before = {"val": {"correct": "1" * 10, "by_class": [[9, 9], [1, 1]]}}
    after = {"val": {"correct": "1" * 9 + "0", "by_class": [[9, 9], [0, 1]]}}
    assert drop_between(before, after).points == pytest.approx(10)
    found = drop_between(before, after, "balanced")
    assert found.points == pytest.approx(50)
    width = found.ci_points[1] - found.ci_points[0]
    whole = drop_between(before, after)
    assert width > whole.ci_points[1] - whole.ci_points[0]
    even = {"val": {"correct": "1101", "by_class": [[2, 2], [1, 2]]}}
    base = {"val": {"correct": "1111", "by_class": [[2, 2], [2, 2]]}}
    assert drop_between(base, even, "balanced").points == drop_between(base, even).points
    widths = [found.ci_points[1] - found.ci_points[0] for found in map(partial(drop_between, base, even), METRICS)]
    assert widths[0] == pytest.approx(widths[1])


def test_how_many_images_a_loss_takes_to_be_seen():
    """Against a simulation: with so many images, a loss of that size lies outside its own interval half of the time."""
    drop = PairedDrop(2.0, (-1, 5), 0.5, 200, 20)  # a tenth of the answers changed
    n = images_needed(2.0, drop)
    rng = random.Random(0)
    seen = 0
    for _ in range(400):
        lost = sum(rng.random() < 0.06 for _ in range(n))  # 6% lost, 4% won: 2 points
        won = sum(rng.random() < 0.04 for _ in range(n))
        error = 1.96 * ((lost + won) / n) ** 0.5 / n**0.5
        seen += (lost - won) / n > error
    assert 0.4 < seen / 400 < 0.6
    assert images_needed(0.0, drop) == 0


@pytest.mark.parametrize(
    ("n", "flips", "points", "nats", "least", "most"),
    [
        (14, 0, 0.0, 0.107, 1.5, 2.7),  # nothing flipped, and answers moved: too few images to say that nothing is lost
        (14, 0, 0.0, 0.001, 0.0, 0.1),  # answers hardly moved
        (5000, 100, 0.4, 0.2, 0.3, 0.8),  # enough images to say what is lost
        (100, 6, 4.0, 0.0, 0.0, 0.0),  # the same answers, and so the same accuracy
        (100, 6, 4.0, None, 4.0, 4.0),
    ],
)
def test_what_is_expected_to_be_lost_follows_what_is_surer(n, flips, points, nats, least, most):
    found = expected_loss(PairedDrop(points, (-1, 9), 1.0, n, flips), nats)
    assert least <= found <= most


def test_nats_are_those_of_the_steps_since_the_fit():
    fit = {"verb": "fit"}
    prune = {"verb": "prune", "diverged": {"nats": 0.03}}
    int8 = {"verb": "quantize", "divergence": {"mse": 0.02, "minmax": 0.04, "biases corrected": 0.005}, "taken": []}
    corrected = int8 | {"taken": ["biases corrected"]}
    assert nats_between([fit, prune], 1) == 0.03
    assert nats_between([fit, prune, corrected], 2) == pytest.approx(0.035)
    assert nats_between([fit, {"verb": "sparsify"}], 1) is None
    assert nats_between([fit], 0) == 0
