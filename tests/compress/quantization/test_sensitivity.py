"""Blame: the layer that was made hard to round comes first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from compress.graph.network import export_network
from compress.quantization.calibrate import watch
from compress.quantization.cpu import U8U8
from compress.quantization.fidelity import logits_of
from compress.quantization.ptq import activations, quantize_static
from compress.quantization.rounding import with_weights
from compress.quantization.sensitivity import blame, output_sqnrs, sqnr_db
from transfer.evaluation.divergence import divergence
from zoo.cost import count_macs

SIZE = (3, 16, 16)


def chain():
    """conv, ReLU three times, mean, linear."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(inputs, 48, 3, padding=1) for inputs in (3, 48, 48)]
    layers = [layer for conv in convs for layer in (conv, nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 3)).eval()


@pytest.mark.parametrize(("before", "bad"), [(0, 2), (4, 8)])
def test_the_bad_layer_is_to_blame(before, bad):
    """One weight of each of its rows is 100 times the others and always meets a zero: the others have no steps left.

    In sums that are exact on every processor: of seven bits another layer's part is less than what lies around it.
    """
    model = chain()
    with torch.no_grad():
        model[8].weight.mul_(100)
        model[before].weight[0] = model[before].bias[0] = 0
        model[bad].weight[:, 0] = 100 * model[bad].weight.abs().max()
    network = export_network(model, SIZE)
    images = [[np.random.default_rng(seed).normal(size=(32, *SIZE)).astype(np.float32)] for seed in range(2)]
    histograms = watch(network, activations(network), images[0])
    steps = []
    how = {"histograms": histograms, "scheme": U8U8}
    found = blame(network, unseen=images[1], progress=lambda *step: steps.append(step), **how)
    name = str(bad)
    assert found[0].layer == name
    assert found[0].share > 0.5 > found[1].share
    assert sum(each.macs for each in found) == count_macs(model, SIZE)
    assert len(steps) == len(found) == 4
    expected = logits_of(network, images[1])
    whole = divergence(expected, logits_of(quantize_static(network, **how).network, images[1]))
    for each in found:
        kept = quantize_static(network, keep=[each.layer], **how).network
        left = divergence(expected, logits_of(kept, images[1]))
        assert each.divergence == pytest.approx(left, abs=0.02 * whole)
    worst = next(each for each in found if each.layer == name)
    assert worst.weight_sqnr_db == min(each.weight_sqnr_db for each in found)
    assert all(each.saved_ms is not None for each in found)


def test_sqnr_of_a_rounding_is_six_decibels_a_bit():
    """Of uniform numbers: the noise is a twelfth of a step squared (Bennett 1948)."""
    values = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    found = [sqnr_db(values, np.round(values * 2**bits) / 2**bits) for bits in (5, 6)]
    assert found[1] - found[0] == pytest.approx(20 * np.log10(2), abs=0.1)
    assert found[0] == pytest.approx(10 * np.log10((1 / 3) / (2.0**-10 / 12)), abs=0.1)
    assert sqnr_db(values, values) == np.inf


def test_sqnr_of_outputs_that_are_a_tenth_off_is_twenty_decibels():
    network = export_network(chain(), SIZE)
    images = [np.random.default_rng(0).normal(size=(4, *SIZE)).astype(np.float32) for _ in range(2)]
    assert set(output_sqnrs(network, network, images).values()) == {np.inf}
    first = {
        tensor.name: np.float32(1.1) * numpy_helper.to_array(tensor)
        for tensor in network.graph.initializer
        if tensor.name in ("0.weight", "0.bias")
    }
    found = output_sqnrs(network, with_weights(network, first), images)
    assert found["0"] == pytest.approx(20, abs=1e-3)
    assert all(np.isfinite(found[layer]) for layer in ("2", "4", "8"))
