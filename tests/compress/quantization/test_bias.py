"""Bias correction: the mean of what comes out is the float network's again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compress.graph.layers import weights_by_layer
from compress.graph.network import export_network
from compress.quantization.bias import correct_biases, input_means
from compress.quantization.calibrate import watch
from compress.quantization.fidelity import logits_of
from compress.quantization.ptq import activations, quantize_static

SIZE = (3, 16, 16)


class Crooked(nn.Module):
    """Weights that all round the same way, inputs that are all positive: the worst case for the mean."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, bias=bias)
        self.second = nn.Conv2d(64, 64, 3, groups=4, bias=bias)
        self.fc = nn.Linear(64, 5, bias=bias)
        with torch.no_grad():
            for layer in (self.first, self.second, self.fc):
                top = layer.weight.abs().amax()
                layer.weight.copy_(top / 127 * (torch.randint(1, 8, layer.weight.shape) + 0.4))
                layer.weight.flatten(1)[:, 0] = top

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.second(self.first(x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("bias", [True, False])
def test_the_mean_comes_back(bias):
    torch.manual_seed(0)
    network = export_network(Crooked(bias=bias).eval(), SIZE)
    images = [np.abs(np.random.default_rng(0).normal(size=(64, *SIZE))).astype(np.float32)]
    histograms = watch(network, activations(network), images)
    quantized = quantize_static(network, histograms=histograms).network
    means = input_means(network, images)
    corrected = correct_biases(network, quantized, means)
    again = quantize_static(corrected, histograms=histograms).network
    expected, before, after = (logits_of(n, images).mean(axis=0) for n in (network, quantized, again))
    assert np.abs(before - expected).max() > 0.05 * np.abs(expected).max()
    assert np.abs(after - expected).max() < 0.1 * np.abs(before - expected).max()
    for name, weight in weights_by_layer(corrected).items():
        np.testing.assert_array_equal(weight, weights_by_layer(network)[name])


def test_means_are_those_of_the_tensors():
    torch.manual_seed(0)
    model = Crooked(bias=True).eval()
    network = export_network(model, SIZE)
    batches = [np.random.default_rng(seed).normal(size=(n, *SIZE)).astype(np.float32) for seed, n in ((0, 3), (1, 5))]
    found = list(input_means(network, batches).values())
    x = torch.from_numpy(np.concatenate(batches))
    with torch.no_grad():
        hidden = model.first(x).relu()
        last = model.second(hidden).relu().mean((2, 3))
    wanted = [x.mean((0, 2, 3)), hidden.mean((0, 2, 3)), last.mean(0)]
    for mean, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mean, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_weights_of_int8_are_what_is_stored_times_its_scale():
    torch.manual_seed(0)
    network = export_network(Crooked(bias=True).eval(), SIZE)
    images = [np.random.default_rng(0).normal(size=(8, *SIZE)).astype(np.float32)]
    rounded = weights_by_layer(quantize_static(network, images).network)
    for name, weight in weights_by_layer(network).items():
        rows = weight if weight.ndim == 4 else weight.reshape(len(weight), -1)
        tops = np.abs(rows).max(axis=tuple(range(1, rows.ndim)), keepdims=True)
        assert (np.abs(rounded[name] - weight) <= tops / 64 / 2 * 1.01).all()
        assert (rounded[name] != weight).any()
