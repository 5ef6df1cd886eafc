"""Times by layer: every layer has one, fused or not, and what multiplies more takes longer."""

from __future__ import annotations

import numpy as np
import pytest

from compress.graph.layers import macs_by_layer
from compress.graph.network import export_network
from compress.quantization.ptq import quantize_static
from compress.quantization.times import layer_ms
from zoo.create import create_model

SIZE = (3, 64, 64)


@pytest.mark.parametrize("name", ["mobilenet_v2", "googlenet", "densenet121", "mobilenet_v3_small"])
def test_every_layer_of_both_networks_has_its_time(name):
    """Activation functions and sums are fused into layers, whose kernels then have other names."""
    network = export_network(create_model(name, num_classes=3).eval(), SIZE)
    images = [np.random.default_rng(0).normal(size=(2, *SIZE)).astype(np.float32)]
    macs = macs_by_layer(network)
    for found in layer_ms(network, quantize_static(network, images).network):
        assert found.keys() == macs.keys()
        assert all(ms >= 0 for ms in found.values())


def test_what_multiplies_more_takes_longer():
    network = export_network(create_model("vgg11", num_classes=3).eval(), SIZE)
    macs = macs_by_layer(network)
    (found,) = layer_ms(network)
    by_macs = sorted(macs, key=macs.__getitem__)
    assert max(found[name] for name in by_macs[:2]) < min(found[name] for name in by_macs[-2:])
