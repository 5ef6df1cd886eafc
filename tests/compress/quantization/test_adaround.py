"""Learned rounding: near to the best of all roundings, and what it may not touch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.graph.network import export_network
from compress.quantization.adaround import adaround, few_of, layers_of
from compress.quantization.fidelity import logits_of
from compress.quantization.patches import as_matrix, columns_at, outputs_of
from compress.quantization.rounding import round_to_nearest, with_weights
from transfer.evaluation.divergence import divergence
from zoo.create import create_model


def one_product(weight):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["y"], name="product")],
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["b", len(weight)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def product():
    """Inputs that go together: roundings can make up for each other."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(24, 3)).astype(np.float32)
    inputs = (rng.normal(size=(512, 6)) @ rng.normal(size=(6, 24)) + 0.1 * rng.normal(size=(512, 24))).astype(
        np.float32
    )
    return weight, inputs


def test_it_is_as_good_as_the_best_of_many_random_roundings(product):
    """Of 100, drawn up or down by what is above the floor: Nagel et al. 2020, figure 1."""
    weight, inputs = product
    network = one_product(weight)
    nearest = round_to_nearest(network, 4)
    learned = adaround(network, nearest, [inputs])["w"]
    steps = learned.grid.steps(weight)
    rng = np.random.default_rng(0)

    def error(rounded):
        return np.square(inputs @ (rounded - weight)).mean(axis=0)

    drawn = [learned.grid.at(np.floor(steps) + (rng.random(steps.shape) < steps - np.floor(steps))) for _ in range(100)]
    least = np.min([error(each) for each in drawn], axis=0)  # of each output by itself
    assert (error(learned.weight) <= least).all()
    assert error(learned.weight).sum() < 0.5 * error(nearest["w"].weight).sum()


def test_every_weight_goes_to_a_neighbour_and_zeros_stay(product):
    weight, inputs = product
    weight[2] = 0
    network = one_product(weight)
    learned = adaround(network, round_to_nearest(network, 4), [inputs])["w"]
    steps = learned.weight / learned.grid.scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert (np.abs(np.rint(steps) - learned.grid.steps(weight)) < 1).all()
    assert (learned.weight[2] == 0).all()


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 8, (1, 3), dilation=2, groups=2),
        nn.Conv2d(6, 8, (3, 2), stride=(1, 3), padding=(0, 2), dilation=(2, 1)),
        nn.Conv2d(6, 8, 1),
    ],
    ids=str,
)
def test_columns_times_matrix_are_the_convolution(conv):
    x = torch.randn(4, 6, 9, 11)
    network = export_network(nn.Sequential(conv), (6, 9, 11))
    (layer,) = layers_of(network)
    size = outputs_of(layer.node, conv.weight, x)
    columns = columns_at(layer.node, conv.weight, x, torch.arange(size).expand(4, -1))
    outputs = as_matrix(layer.node, conv.weight, conv.groups) @ columns
    expected = conv(x) - conv.bias[:, None, None]
    torch.testing.assert_close(outputs.flatten(1, 2).reshape(expected.shape), expected)
    places = torch.randint(size, (4, 7))
    some = columns_at(layer.node, conv.weight, x, places)
    torch.testing.assert_close(some, torch.stack([columns[i][..., places[i]] for i in range(4)]))


def test_rows_times_a_matrix_are_the_product():
    x, weight = torch.randn(4, 5, 6), torch.randn(6, 3)
    (layer,) = layers_of(one_product(weight.numpy()))
    places = torch.randint(outputs_of(layer.node, weight, x), (4, 7))
    outputs = as_matrix(layer.node, weight, 1) @ columns_at(layer.node, weight, x, places)
    torch.testing.assert_close(outputs[:, 0], torch.stack([(x @ weight)[i][places[i]].T for i in range(4)]))


def test_a_network_of_four_bits_comes_nearer():
    torch.manual_seed(0)
    model = create_model("resnet20", width=8, stages=(1, 1, 1), num_classes=3).eval()
    with torch.no_grad():
        model.fc.weight.mul_(20)
    network = export_network(model, (3, 32, 32))
    rng = np.random.default_rng(0)
    seen, unseen = ([rng.normal(size=(32, 3, 32, 32)).astype(np.float32)] for _ in range(2))
    nearest = round_to_nearest(network, 4)
    expected = logits_of(network, unseen)
    far, near = (
        divergence(expected, logits_of(with_weights(network, {k: r.weight for k, r in found.items()}), unseen))
        for found in (nearest, adaround(network, nearest, seen))
    )
    assert near < 0.5 * far


@pytest.mark.parametrize(("side", "images"), [(32, 300), (96, 256), (224, 47), (600, 32)])
def test_large_images_are_fewer(side, images):
    """The network is run twice a layer: as many pixels as 256 images of 96 px have, but 32 images at least."""
    batches = (np.zeros((10, 1, side, side), np.float32) for _ in range(30))
    found = few_of(batches)
    assert sum(map(len, found)) == images
    assert {batch.shape[1:] for batch in found} == {(1, side, side)}
