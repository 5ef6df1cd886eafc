"""The search keeps what brings the answers nearer, and says what it tried."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.graph.network import export_network
from compress.quantization.fidelity import logits_of
from compress.quantization.nearest import CORRECTED, EQUALIZED, nearest
from compress.quantization.settings import RANGES
from transfer.evaluation.divergence import divergence
from zoo.create import create_model

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [[rng.normal(size=(48, *SIZE)).astype(np.float32)] for _ in range(2)]


@pytest.fixture(scope="module")
def far_apart():
    return of(spread=1.5)


def of(*, spread):
    """A MobileNetV2 with ReLU, whose hidden channels are scaled up to that far apart and back."""
    torch.manual_seed(0)
    model = create_model("mobilenet_v2", activation="relu", num_classes=3, width=0.25).eval()
    with torch.no_grad():
        for block in list(model.features)[2:18]:
            norm, depthwise = block.conv[0][1], block.conv[1][0]
            factors = torch.logspace(-1, 1, len(norm.weight))[torch.randperm(len(norm.weight))] ** spread
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            depthwise.weight.div_(factors[:, None, None, None])
        model.classifier[-1].weight.mul_(20)
    return export_network(model, SIZE)


def test_what_it_gives_is_the_least_of_what_it_tried(images):
    network = of(spread=0.0)
    found = nearest(network, *images)
    assert list(found.tried)[:3] == list(RANGES)
    got = divergence(logits_of(network, images[1]), logits_of(found.quantized.network, images[1]))
    assert got <= min(found.tried.values()) / 0.95 + 1e-12
    assert set(found.taken) <= {EQUALIZED, CORRECTED}


def test_channels_far_apart_are_equalized(images, far_apart):
    """One scale for all activations of a tensor: without equalization most channels have few steps left."""
    found = nearest(far_apart, *images, ranges=("minmax",))
    assert EQUALIZED in found.taken
    assert found.tried[EQUALIZED] < 0.5 * found.tried["minmax"]
    assert found.quantized.ranges == "minmax"


def test_only_the_changes_asked_for_are_tried(images, far_apart):
    alone = nearest(far_apart, *images, ranges=("minmax",), changes=(EQUALIZED,))
    assert list(alone.tried) == ["minmax", EQUALIZED]
    assert alone.taken == (EQUALIZED,)
    assert list(nearest(far_apart, *images, ranges=("minmax",), changes=()).tried) == ["minmax"]
