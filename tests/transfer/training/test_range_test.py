"""The range test: where gradient descent is known to explode, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from transfer.data.loader import LabelledPixels
from transfer.training.batch import TrainingData
from transfer.training.range_test import RangeTest, longest_fall, range_test, save_range, sweep
from transfer.training.recipe import Recipe
from zoo.create import create_model
from zoo.models import lenet
from zoo.preprocess import Preprocess

GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.25,))
RECIPE = Recipe(batch=8, lr=1e-3, backbone_lr=5e-4)


@pytest.fixture
def data():
    """Images whose brightness is their class."""
    labels = np.arange(40) % 2
    pixels = np.random.default_rng(0).integers(0, 100, (40, 28, 28, 1)) + 120 * labels[:, None, None, None]
    return TrainingData(LabelledPixels(pixels.astype(np.uint8), labels), None, GREY)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("lenet5", **{**lenet.TINY["lenet5"], "num_classes": 2})


@pytest.mark.parametrize("curvature", [0.5, 4.0, 300.0])
def test_gradient_descent_on_a_parabola_explodes_at_two_over_its_curvature(curvature):
    """w <- w - rate * L * w shrinks while |1 - rate * L| < 1: until rate = 2 / L."""
    w, noise = 1.0, np.random.default_rng(0)

    def take_step(rate):
        nonlocal w
        loss = curvature * w * w / 2 + 0.5
        w = w - rate * curvature * w + 1e-3 * noise.normal()
        return loss

    found = sweep(take_step, steps=100)
    limit = 2 / curvature
    assert found.suggestion is not None
    assert limit / 1e4 < found.suggestion < limit
    if limit < 5:  # else the range ends first
        assert limit < found.rates[-1] < 20 * limit  # it stopped soon after, not at 10
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    np.testing.assert_allclose(found.rates, 1e-7 * 1e8 ** (np.arange(len(found.rates)) / 99))


def test_smoothing_is_a_weighted_mean_of_the_losses_so_far():
    losses = np.random.default_rng(0).random(40)
    given = iter(losses)
    found = sweep(lambda rate: float(next(given)), steps=40)
    for step in range(40):
        weights = 0.98 ** np.arange(step, -1, -1)
        assert found.smoothed[step] == pytest.approx((weights * losses[: step + 1]).sum() / weights.sum())


def test_it_stops_at_what_is_not_finite():
    given = iter([1.0] * 30 + [float("nan")])
    found = sweep(lambda rate: next(given), steps=100)
    assert len(found.losses) == 30
    assert found.suggestion is None  # the loss falls nowhere


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="steps=5: at least 20"):
        sweep(lambda rate: 1.0, steps=5)


def test_longest_fall_against_all_subsequences():
    rng = np.random.default_rng(0)
    for _ in range(150):
        values = rng.integers(0, 6, rng.integers(0, 9)).tolist()
        lengths = [
            len(chosen)
            for size in range(2, len(values) + 1)
            for chosen in combinations(values, size)
            if all(a > b for a, b in pairwise(chosen))
        ]
        found = longest_fall(values)
        if not lengths:
            assert found is None
            continue
        first, last = found
        assert values[first] > values[last]
        inside = values[first : last + 1]
        assert any(
            chosen[0] == values[first] and chosen[-1] == values[last] and all(a > b for a, b in pairwise(chosen))
            for chosen in combinations(inside, max(lengths))
        )


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.2, "cutmix": 1.0}])
def test_model_and_generators_are_left_alone_and_the_seed_decides(model, data, mixing):
    recipe = replace(RECIPE, **mixing)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    state, heard = torch.get_rng_state(), []
    first = range_test(model, data, recipe, steps=30, progress=lambda *what: heard.append(what[:3]))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    torch.manual_seed(4)
    assert range_test(model, data, recipe, steps=30) == first
    assert range_test(model, data, replace(recipe, seed=1), steps=30) != first
    assert heard == [("range test", done, 30) for done in range(1, len(first.losses) + 1)]


def test_suggested_rate_learns(model, data):
    """At the suggestion the loss falls within two epochs, at a hundred-thousandth of it, hardly."""
    recipe = replace(RECIPE, label_smoothing=0.0, optimizer="sgd")
    found = range_test(model, data, recipe)
    assert found.suggestion is not None
    assert 1e-5 < found.suggestion < 5

    def loss_after(rate):
        torch.manual_seed(0)
        network = create_model("lenet5", **{**lenet.TINY["lenet5"], "num_classes": 2})
        network.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True)
        x, y = torch.from_numpy(GREY.normalize(data.train.pixels)), torch.from_numpy(data.train.labels)
        for _ in range(12):
            loss = torch.nn.functional.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    assert loss_after(found.suggestion) < loss_after(found.suggestion * 1e-5) - 0.01


@pytest.mark.parametrize("suggestion", [0.02, None])
def test_picture(tmp_path, suggestion):
    from PIL import Image

    rates = tuple(1e-4 * 2.0**k for k in range(12))
    save_range(RangeTest(rates, tuple(3.0 - 0.1 * k for k in range(12)), (2.5,) * 12, suggestion), tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as image:
        assert min(image.size) > 200
        assert len(image.convert("RGB").getcolors(1 << 24)) > 3
