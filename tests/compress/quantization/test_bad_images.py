"""Calibration images that are no use, given as arrays: one line each that says what was given and what is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.quantization.calibrate import Images, watch
from compress.quantization.ptq import quantize_static
from zoo.errors import SlimzooError, UsageError
from zoo.preprocess import Preprocess

PREPROCESS = Preprocess(size=(6, 4))


@pytest.fixture(scope="module")
def network():
    weight = np.random.default_rng(0).normal(size=(64, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["logits"], name="conv")],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 6, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 64, 4, 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def good(count=2):
    return np.random.default_rng(1).normal(size=(count, 3, 6, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([good()[:, :, :5]], r"images of shape \(2, 3, 5, 4\); wanted float32 \(batch, 3, 6, 4\): prepare them by"),
        (good(), r"images of shape \(3, 6, 4\); wanted"),  # one array, not batches
        ([good()[:0]], r"images of shape \(0, 3, 6, 4\); wanted"),
        ([good().transpose(0, 2, 3, 1)], r"images of shape \(2, 6, 4, 3\); wanted"),
        ([good().astype(np.float64)], "images of float64; wanted float32"),
        ([np.zeros((2, 3, 6, 4), np.uint8)], "images of uint8; wanted float32"),
        ([good().tolist()], "images as list; wanted"),
        ([], "no images; wanted float32"),
        (None, "no images; wanted float32"),
        ([good(), good()[:, :1]], r"images of shape \(2, 1, 6, 4\)"),  # not the first batch
    ],
)
def test_batches_of_another_shape_or_type(network, images, said):
    with pytest.raises(UsageError, match=said) as told:
        quantize_static(network, images)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers(network, bad):
    images = good()
    images[1, 2, 3, 1] = bad
    with pytest.raises(SlimzooError, match="the calibration images hold values that are not finite; check the images"):
        quantize_static(network, [good(), images])


def test_a_network_of_any_size_takes_any(network):
    from onnx import ModelProto

    free = ModelProto.FromString(network.SerializeToString())
    for dim in free.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
        dim.dim_param = "any"
    assert watch(free, ["input"], [good(), np.zeros((1, 3, 9, 9), np.float32)])["input"].counts.sum() == 144 + 243


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((2, 6, 4, 3)), r"pixels of float64; wanted uint8 \(images, 6, 4, 3\), as Preprocess\.resize gives"),
        (np.zeros((2, 4, 6, 3), np.uint8), r"pixels of shape \(2, 4, 6, 3\); wanted"),
        (np.zeros((6, 4, 3), np.uint8), r"pixels of shape \(6, 4, 3\); wanted"),
        (np.zeros((0, 6, 4, 3), np.uint8), r"at least one image"),
    ],
)
def test_pixels_of_another_shape_or_type(pixels, said):
    with pytest.raises(UsageError, match=said):
        Images(pixels, PREPROCESS)
