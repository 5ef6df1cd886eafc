"""Times by layer: every layer has one, fused or not, and has its own and no neighbour's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compress.graph.layers import macs_by_layer
from compress.graph.network import export_network
from compress.quantization.ptq import quantize_static
from compress.quantization.times import layer_ms
from zoo.create import create_model
from zoo.models.registry import model_entry

SIZE = (3, 64, 64)


@pytest.mark.parametrize("name", ["mobilenet_v2", "googlenet", "densenet121", "mobilenet_v3_small"])
def test_every_layer_of_both_networks_has_its_time(name):
    """Activation functions and sums are fused into layers, whose kernels then have other names."""
    network = export_network(create_model(name, **model_entry(name).tiny).eval(), SIZE)
    images = [np.random.default_rng(0).normal(size=(2, *SIZE)).astype(np.float32)]
    macs = macs_by_layer(network)
    for found in layer_ms(network, quantize_static(network, images).network):
        assert found.keys() == macs.keys()
        assert all(ms >= 0 for ms in found.values())


class Turns(nn.Module):
    """Layers of 340 million products, and of 0.3 million after and between them, with what may be fused into either."""

    def __init__(self):
        super().__init__()
        self.big = nn.ModuleList(nn.Conv2d(128, 128, 3, padding=1) for _ in range(3))
        self.small = nn.ModuleList(nn.Conv2d(128, 128, 1, groups=128) for _ in range(3))
        self.head = nn.Linear(128, 2)

    def forward(self, x):
        for big, small in zip(self.big, self.small, strict=True):
            x = torch.relu(small(torch.relu(big(x)))) + x
        return self.head(x.mean((2, 3)))


def test_each_layer_has_its_own_time():
    """A thousand times the products: no load of the machine turns that round, and a neighbour's time is the other."""
    network = export_network(Turns().eval(), (128, 48, 48))
    (found,) = layer_ms(network)
    big, small = ([ms for name, ms in found.items() if name.startswith(kind)] for kind in ("big", "small"))
    assert (len(big), len(small)) == (3, 3)
    assert min(big) > 4 * max(small)
