"""Histograms against NumPy's of all values at once, ranges against percentiles, brute force and a published optimum."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compress.quantization.calibrate import BINS, Histogram, least_squares, min_max, percentile, watch
from zoo.errors import SlimzooError


def filled(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), min_size=1, max_size=5),
    st.sampled_from([1e-20, 1e-3, 1.0, 1e20]),
)
@example([[999631.0, -547417.0, -3.0688436368713494e-43]], 1e20)
def test_it_is_numpys_histogram_of_all_values_at_once(batches, unit):
    batches = [np.array(batch, np.float32) * np.float32(unit) for batch in batches]
    least = 1e-30 * max(1.0, *(float(np.abs(batch).max()) for batch in batches))  # in bins, subnormals count as 0
    batches = [np.where(np.abs(batch) < least, np.float32(0), batch) for batch in batches]
    values = np.concatenate(batches)
    histogram = filled(*batches)
    edges = np.arange(histogram.first, histogram.first + histogram.counts.size + 1) * 2.0**histogram.exponent
    assert histogram.counts.size <= BINS
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert histogram.zeros == (values == 0).sum()
    places = np.searchsorted(edges, values.astype(np.float64), side="right") - 1
    assert (histogram.counts == np.bincount(places, minlength=histogram.counts.size)).all()


def test_the_order_of_the_batches_does_not_matter():
    rng = np.random.default_rng(0)
    batches = [rng.normal(shift, scale, 500) for shift, scale in ((0, 1), (3, 0.01), (-40, 9), (0, 1e-6))]
    first, *others = [filled(*order) for order in itertools.permutations(batches)]
    for other in others:
        assert (other.exponent, other.first) == (first.exponent, first.first)
        assert (other.counts == first.counts).all()


def test_no_more_bins_than_needed_are_given_up():
    """At half the width the range would not fit."""
    histogram = filled(np.linspace(-1, 3, 1000))
    assert 4 / 2.0 ** (histogram.exponent - 1) > BINS - 2


def test_zeros_alone():
    histogram = filled(np.zeros((3, 4)))
    assert {method(histogram) for method in (min_max, percentile, least_squares)} == {(0, 0)}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(SlimzooError, match="not finite"):
        filled([1.0, bad])


def test_percentile_is_numpys_to_a_bin():
    values = np.random.default_rng(1).standard_t(2, 200_000)  # heavy tails
    histogram = filled(*np.split(values, 10))
    low, high = percentile(histogram, clipped=0.02)
    assert (low, high) == pytest.approx(tuple(np.percentile(values, [1, 99])), abs=2.0**histogram.exponent)
    assert min_max(histogram)[1] > 10 * high


@pytest.mark.parametrize(("bits", "optimum"), [(2, 1.71), (3, 2.15), (4, 2.55)])
def test_least_squares_of_a_gaussian_is_the_published_clip(bits, optimum):
    """Banner, Nahshan and Soudry 2019 (arXiv:1810.05723), section 3: of a normal distribution's standard deviations."""
    low, high = least_squares(filled(np.random.default_rng(2).normal(size=400_000)), steps=2**bits - 1)
    assert (high - low) / 2 == pytest.approx(optimum, rel=0.12)  # theirs has no step at 0


def test_least_squares_is_no_worse_than_any_range_of_a_grid():
    values = np.random.default_rng(3).gamma(0.5, size=20_000) - 0.1

    def error(low, high):
        scale = (high - low) / 15
        zero = round(-low / scale)
        rounded = (np.clip(np.round(values / scale) + zero, 0, 15) - zero) * scale
        return np.square(values - rounded).sum()

    found = error(*least_squares(filled(values), steps=15))
    grid = [error(-0.1 * a, values.max() * b) for a in np.linspace(0.1, 1, 10) for b in np.linspace(0.05, 1, 40)]
    assert found <= 1.02 * min(grid)
    assert found < 0.7 * error(-0.1, values.max())


def test_a_rectified_tensor_keeps_its_zero():
    values = np.maximum(np.random.default_rng(4).normal(size=10_000), 0)
    low, high = least_squares(filled(values))
    assert low == 0
    assert 3 < high <= values.max()


@pytest.fixture
def network():
    """logits = relu(2 x) - 1"""
    nodes = [
        helper.make_node("Mul", ["input", "two"], ["doubled"]),
        helper.make_node("Relu", ["doubled"], ["positive"]),
        helper.make_node("Sub", ["positive", "one"], ["logits"]),
    ]
    shape = ["batch", 1, 2, 2]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(v), name) for v, name in ((2, "two"), (1, "one"))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def test_a_network_is_watched_batch_by_batch(network):
    batches = [np.full((2, 1, 2, 2), value, np.float32) for value in (-1, 3)]
    found = watch(network, ["input", "doubled", "positive", "logits"], iter(batches))
    assert {name: min_max(histogram) for name, histogram in found.items()} == {
        "input": (-1, 3),
        "doubled": (-2, 6),
        "positive": (0, 6),
        "logits": (-1, 5),
    }
    assert all(histogram.counts.sum() == 16 for histogram in found.values())
    assert network.graph.output[0].name == "logits"  # the caller's is left alone


def test_calibration_images_that_are_not_finite_are_named(network):
    with pytest.raises(SlimzooError, match="the calibration images hold values that are not finite; check the images"):
        watch(network, ["input", "doubled"], [np.full((1, 1, 2, 2), np.nan, np.float32)])
    huge = [np.full((1, 1, 2, 2), 3e38, np.float32)]
    with pytest.raises(SlimzooError, match="doubled takes values that are not finite"):
        watch(network, ["doubled"], huge)
