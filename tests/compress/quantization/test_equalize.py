"""Equalization: the function stays, the ranges meet, and one scale a tensor is enough again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.graph.network import export_network
from compress.quantization.equalize import Pair, equalize, pairs_of
from compress.quantization.fidelity import logits_of
from zoo.create import create_model

SIZE = (3, 12, 12)


class Net(nn.Module):
    """conv, ReLU, depthwise, ReLU, conv; then a residual and a branch, which nothing may cross."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16)
        self.grouped, self.second = nn.Conv2d(16, 8, 3, groups=4), nn.Conv2d(8, 8, 1, bias=False)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.depthwise(self.first(x).relu()).relu())
        x = x + self.second(x)
        return (self.left(x) + self.right(x)).mean((2, 3))


def scaled(model: nn.Module) -> nn.Module:
    """Channels thousands of times apart in the first layers, the function as it was."""
    factors = torch.logspace(-2, 2, 16)[torch.randperm(16)]
    with torch.no_grad():
        model.first.weight.mul_(factors[:, None, None, None])
        model.first.bias.mul_(factors)
        model.depthwise.weight.div_(factors[:, None, None, None])
    return model.eval()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return export_network(scaled(Net()), SIZE)


def weights_of(network):
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    return {n.name: stored[n.input[1]] for n in network.graph.node if n.op_type == "Conv"}


def test_the_function_stays_and_the_ranges_meet(network):
    images = [np.random.default_rng(0).normal(size=(4, *SIZE)).astype(np.float32)]
    equal, pairs = equalize(network)
    expected = logits_of(network, images)
    np.testing.assert_allclose(logits_of(equal, images), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    first, depthwise, grouped, *_ = weights_of(equal).values()
    of_first, of_depthwise = (np.abs(w).max(axis=(1, 2, 3)) for w in (first, depthwise))
    read = [np.abs(grouped[2 * (c // 4) : 2 * (c // 4) + 2, c % 4]).max() for c in range(16)]
    np.testing.assert_allclose(of_first, of_depthwise, rtol=0.01)
    np.testing.assert_allclose(of_depthwise, read, rtol=0.01)
    before = np.abs(next(iter(weights_of(network).values()))).max(axis=(1, 2, 3))
    assert before.max() / before.min() > 1000
    assert of_first.max() / of_first.min() < 50
    assert len(pairs) == 2


def test_pairs_end_where_more_than_one_reads(network):
    first, depthwise, grouped, *_ = weights_of(network)
    assert pairs_of(network) == [Pair(first, depthwise), Pair(depthwise, grouped)]


def test_every_block_of_a_mobilenet_with_relu_has_its_pairs():
    """16 blocks of two, expansion to depthwise to projection; the first block's one; the last one's to the head."""
    model = create_model("mobilenet_v2", activation="relu", num_classes=3, width=0.25).eval()
    assert len(pairs_of(export_network(model, (3, 32, 32)))) == 16 * 2 + 1 + 1
    six = create_model("mobilenet_v2", num_classes=3, width=0.25).eval()
    found = pairs_of(export_network(six, (3, 32, 32)))
    assert all("Clip" not in (pair.first, pair.second) for pair in found)
    assert len(found) < 10
