"""Dynamic int8 against integers that NumPy multiplies, and what has nothing to gain from it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.graph.layers import macs_by_layer, with_stored_weights
from compress.graph.network import export_network
from compress.quantization.cpu import U8S8, U8S8_7BIT, is_exact
from compress.quantization.dynamic import quantize_dynamic
from compress.quantization.fidelity import logits_of
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.errors import SlimzooError


@pytest.mark.parametrize(("scheme", "levels"), [(U8S8, 127), (U8S8_7BIT, 64)], ids=["8 bits", "7 bits"])
def test_a_gemm_is_numpys_integer_product(scheme, levels):
    if not is_exact(scheme):
        pytest.skip("sums of this scheme saturate on this processor")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10)).eval()
    with torch.no_grad():
        model[1].weight[3] = 0  # a dead channel
        model[1].weight[4, ::2] = 0
    found = quantize_dynamic(export_network(model, (3, 4, 4)), scheme=scheme)
    assert (found.converted_layers, found.layers, found.macs) == (1, 1, 1.0)
    weight, bias = (tensor.detach().numpy() for tensor in model[1].parameters())
    x = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    low, high = min(x.min(), 0), max(x.max(), 0)
    step = (high - low) / np.float32(255)
    zero = np.rint(-low / step)
    x_steps = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.int64) - int(zero)
    scale = np.abs(weight).max(axis=1, keepdims=True) / levels  # (O, 1)
    scale[3] = 1
    w_steps = np.rint(weight / scale).astype(np.int64)
    expected = x_steps @ w_steps.T * (step * scale.T) + bias
    np.testing.assert_allclose(logits_of(found.network, [x.reshape(5, 3, 4, 4)]), expected, atol=1e-5)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.network.graph.initializer}
    np.testing.assert_array_equal(stored["1.weight_quantized"], w_steps.T)
    assert found.density == pytest.approx((w_steps != 0).mean())


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_runs_in_int8_and_a_gru_does_not(bidirectional):
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(6, 28, 28)).astype(np.float32)
    for name in ("lstm", "gru"):
        model = create_model(name, width=64, bidirectional=bidirectional).eval()
        network = export_network(model, (28, 28))
        assert sum(macs_by_layer(network).values()) == count_macs(model, (28, 28))
        whole = with_stored_weights(network)
        np.testing.assert_array_equal(logits_of(whole, [images]), logits_of(network, [images]))
        if name == "gru":
            with pytest.raises(SlimzooError, match="asked for int8-dynamic, got 1 of 2 layers"):
                quantize_dynamic(network)
            continue
        found = quantize_dynamic(network)
        assert found.nodes["DynamicQuantizeLSTM"] == found.macs == 1
        expected, got = logits_of(network, [images]), logits_of(found.network, [images])
        assert np.square(got - expected).mean() < 0.01 * np.square(expected).mean()
        assert found.network.ByteSize() < 0.4 * whole.ByteSize()


def test_a_transformer_keeps_its_shape_and_a_network_of_convolutions_is_refused():
    torch.manual_seed(0)
    model = create_model("vit_tiny", image_size=32, num_classes=10, depth=2).eval()
    found = quantize_dynamic(export_network(model, (3, 32, 32)))
    assert (found.converted_layers, found.layers) == (9, 14)  # not the patches, nor attention's two products a block
    onnx.checker.check_model(found.network, full_check=True)
    convolutions = export_network(create_model("resnet20", width=8, num_classes=3).eval(), (3, 32, 32))
    said = r"asked for int8-dynamic, got 1 of 22 layers and 0\.0% of the MACs in it, and .*try to int8 for convolutions"
    with pytest.raises(SlimzooError, match=said):
        quantize_dynamic(convolutions)
