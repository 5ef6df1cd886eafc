"""The layers of an ONNX network against the counts of torch's operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.graph.layers import integer_layers, macs_by_layer
from compress.graph.network import export_network
from compress.quantization.ptq import quantize_static
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.models.registry import model_entry


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "densenet121", "vit_tiny"])
def test_macs_are_those_of_the_model_and_all_run_in_int8(name):
    options = dict(model_entry(name).tiny)
    side = options.get("image_size", 32)
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    network = export_network(model, (3, side, side))
    layers = macs_by_layer(network)
    assert sum(layers.values()) == count_macs(model, (3, side, side))
    assert integer_layers(network) == set()
    images = np.random.default_rng(0).normal(size=(2, 4, 3, side, side)).astype(np.float32)
    quantized = quantize_static(network, images)
    assert macs_by_layer(quantized.network) == layers
    assert integer_layers(quantized.network) == layers.keys()
    assert quantized.int8_macs == 1
    first = max(layers, key=lambda layer: layers[layer])
    kept = quantize_static(network, images, keep=[first])
    assert integer_layers(kept.network) == layers.keys() - {first}
    assert kept.int8_macs == pytest.approx(1 - layers[first] / sum(layers.values()))
