"""Inputs made ahead: the same ones, in order, errors where they belong, and no thread left behind."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from transfer.data.augment import Augment
from transfer.data.loader import LabelledPixels
from transfer.training.batch import Batches, TrainingData
from transfer.training.prefetch import Prefetch
from transfer.training.recipe import Recipe
from zoo.preprocess import Preprocess


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_results_come_in_order(depth):
    with Prefetch(lambda key: key * key, range(5), depth=depth) as prefetch:
        assert list(prefetch) == [(key, key * key) for key in range(5)]
    assert not threads()


def test_no_more_than_depth_are_made_ahead():
    made = []
    with Prefetch(made.append, range(10), depth=2) as prefetch:
        taken = iter(prefetch)
        for count in range(1, 5):
            next(taken)
            deadline = time.monotonic() + 5
            while len(made) < count + 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            assert made == list(range(count + 2))
    assert not threads()


def test_thread_ends_when_the_block_is_left_early():
    with Prefetch(str, range(1000), depth=2) as prefetch:
        for key, _ in prefetch:
            if key == 3:
                break
    assert not threads()
    with pytest.raises(KeyboardInterrupt), Prefetch(str, range(1000), depth=2):
        raise KeyboardInterrupt
    assert not threads()


@pytest.mark.parametrize("depth", [0, 2])
def test_error_is_raised_where_its_result_was_due(depth):
    def make(key):
        if key == 2:
            raise ValueError("no such image")
        return key

    got = []
    with pytest.raises(ValueError, match="no such image"), Prefetch(make, range(5), depth=depth) as prefetch:  # noqa: PT012
        for _, value in prefetch:
            got.append(value)
    assert got == [0, 1]
    assert not threads()


def test_waiting_is_measured():
    with Prefetch(lambda _: time.sleep(0.02), range(3), depth=0) as prefetch:
        for _ in prefetch:
            pass
        assert prefetch.waited_s >= 0.06
    with Prefetch(lambda _: time.sleep(0.005), range(4), depth=2) as prefetch:
        for _ in prefetch:
            time.sleep(0.05)
        assert prefetch.waited_s < 0.06  # the first alone, within an order of magnitude


@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.4, "cutmix": 1.0}])
def test_batches_made_ahead_have_the_same_bits_and_leave_torchs_generator_alone(mixed):
    rng = np.random.default_rng(0)
    pixels = LabelledPixels(rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8), rng.integers(0, 4, 20))
    recipe = Recipe(epochs=2, batch=8, augment=Augment(erase=0.5, blur=0.5), seed=5, **mixed)
    data = TrainingData(pixels, None, Preprocess(size=(16, 16)))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = []
    for depth in (0, 2):
        make = Batches(data, recipe, 4, torch.device("cpu"))
        with Prefetch(make, range(make.steps), depth=depth) as prefetch:
            found.append([batch for _, batch in prefetch])
    assert len(found[0]) == len(found[1]) == 6
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert one.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(state, torch.get_rng_state())
    first_epoch = np.concatenate([batch.indices for batch in found[0][:3]])
    assert sorted(first_epoch) == list(range(20))
    if not mixed:
        assert found[0][0].targets.tolist() == pixels.labels[found[0][0].indices].tolist()
