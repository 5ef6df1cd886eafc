"""Grids of weights against naive loops; what is stored in half a byte acts as what is stored in a byte."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.graph.layers import weights_by_layer
from compress.graph.network import export_network
from compress.quantization.cpu import Scheme
from compress.quantization.ptq import quantize_static
from compress.quantization.rounding import fit_grid, round_to_nearest
from zoo.create import create_model

SIZE = (3, 32, 32)


@pytest.fixture
def weight():
    return np.random.default_rng(0).normal(size=(5, 4, 3, 3)).astype(np.float32) ** 3


@pytest.mark.parametrize("bits", [8, 7])
def test_with_many_bits_a_grid_reaches_to_the_largest_weight(weight, bits):
    grid = fit_grid(weight, 0, bits)
    for channel in range(len(weight)):
        scale = np.abs(weight[channel]).max() / (2 ** (bits - 1) - 1)
        assert grid.scale[channel] == pytest.approx(scale, rel=1e-6)
        expected = np.round(weight[channel].astype(np.float64) / np.float64(grid.scale[channel]))
        np.testing.assert_array_equal(np.rint(grid.steps(weight))[channel], expected)


def test_with_few_bits_a_grid_clips_where_that_is_better(weight):
    def error(reach):
        scale = reach / 7
        return np.square(channel - np.clip(np.round(channel / scale), -7, 7) * scale).sum()

    grid = fit_grid(weight, 0, 4)
    assert (grid.scale < np.abs(weight).max(axis=(1, 2, 3)) / 7).any()  # cubes of normal numbers have long tails
    for channel, scale in zip(weight.astype(np.float64), grid.scale, strict=True):
        largest = np.abs(channel).max()
        assert error(scale * 7) <= min(error(share * largest) for share in np.linspace(0.3, 1, 50)) * 1.01


def test_one_scale_for_a_tensor(weight):
    assert np.ptp(fit_grid(weight, 0, 8, by_channel=False).scale) == 0
    assert fit_grid(weight, 0, 8, by_channel=False).scale[0] == pytest.approx(np.abs(weight).max() / 127)


@pytest.mark.parametrize(
    ("kind", "shape", "transposed"), [("Gemm", (6, 4), 1), ("Gemm", (4, 6), 0), ("MatMul", (4, 6), 0)]
)
def test_output_channels_are_where_the_product_has_them(kind, shape, transposed):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    attributes = {"transB": 1} if transposed else {}
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"], name="product", **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 6])],
        [numpy_helper.from_array(values, "w")],
    )
    found = round_to_nearest(helper.make_model(graph), 8)["w"]
    outputs = values if transposed else values.T
    np.testing.assert_allclose(found.grid.scale, np.abs(outputs).max(axis=1) / 127, rtol=1e-6)


def test_zeros_and_empty_channels_stay(weight):
    weight[1] = 0
    weight[2, :, 1] = 0
    for bits in (8, 4, 2):
        grid = fit_grid(weight, 0, bits)
        rounded = grid.at(np.rint(grid.steps(weight)))
        assert np.isfinite(rounded).all()
        assert (rounded[1] == 0).all()
        assert (rounded[2, :, 1] == 0).all()


def test_half_a_byte_acts_as_a_byte():
    """The same logits to the bit, the same layers on integers, about half of the weights' bytes."""
    torch.manual_seed(0)
    network = export_network(create_model("resnet20", num_classes=3).eval(), SIZE)
    images = [np.random.default_rng(0).normal(size=(8, *SIZE)).astype(np.float32)]
    four = round_to_nearest(network, 4)
    in_bytes = quantize_static(network, images, scheme=Scheme("uint8", "int8"), roundings=four)
    in_halves = quantize_static(network, images, scheme=Scheme("uint8", "int8", bits=4), roundings=four)
    logits = [
        onnxruntime.InferenceSession(found.network.SerializeToString()).run(None, {"input": images[0]})[0]
        for found in (in_bytes, in_halves)
    ]
    np.testing.assert_array_equal(*logits)
    assert in_halves.int8_layers == in_bytes.int8_layers == in_bytes.layers
    weights = sum(each.weight.size for each in four.values())
    assert in_bytes.network.ByteSize() - in_halves.network.ByteSize() > 0.4 * weights
    assert in_halves.density == in_bytes.density
    unsigned = quantize_static(network, images, scheme=Scheme("uint8", "uint8", bits=4), roundings=four).network
    (signed_by_layer, unsigned_by_layer) = weights_by_layer(in_bytes.network), weights_by_layer(unsigned)
    for layer, weight in signed_by_layer.items():
        np.testing.assert_allclose(unsigned_by_layer[layer], weight, atol=1e-6)
