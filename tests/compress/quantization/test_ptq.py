"""int8 networks: they run on integers, are near to the float ones, and refuse what would not be."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from compress.graph.layers import integer_layers
from compress.graph.network import export_network
from compress.quantization.calibrate import Images, watch
from compress.quantization.cpu import U8S8, U8S8_7BIT
from compress.quantization.fidelity import logits_of
from compress.quantization.ptq import activations, quantize_static
from transfer.evaluation.divergence import divergence
from zoo.create import create_model
from zoo.errors import SlimzooError, UsageError
from zoo.preprocess import Preprocess

SIZE = (3, 32, 32)
PREPROCESS = Preprocess(size=SIZE[1:])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create_model("resnet20", width=8, stages=(1, 1, 1), num_classes=3).eval()
    with torch.no_grad():
        model.fc.weight.mul_(20)
    return export_network(model, SIZE)


@pytest.fixture(scope="module")
def images():
    return Images(np.random.default_rng(2).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8), PREPROCESS)


@pytest.mark.parametrize("scheme", [U8S8, U8S8_7BIT], ids=str)
def test_int8_is_near_to_float(network, images, scheme):
    quantized = quantize_static(network, images, scheme=scheme)
    assert quantized.int8_layers == quantized.layers == 10
    assert quantized.nodes["QuantizeLinear"] > 0
    expected, got = logits_of(network, images), logits_of(quantized.network, images)
    assert np.square(got - expected).mean() < 0.03 * np.square(expected).mean()
    weights = [numpy_helper.to_array(t) for t in quantized.network.graph.initializer if t.data_type == 3]
    assert max(np.abs(w.astype(int)).max() for w in weights) == {8: 127, 7: 63}[scheme.bits]


def test_images_come_again_in_batches_of_any_size():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 256, 256, 3), dtype=np.uint8)
    images = Images(pixels, Preprocess(size=(256, 256)))
    for _ in range(2):
        batches = list(images)
        assert [len(batch) for batch in batches] == [1] * 5
        np.testing.assert_array_equal(np.concatenate(batches), Preprocess(size=(256, 256)).normalize(pixels))


def test_an_outlier_ruins_the_extremes(network, images):
    """One value of each tensor, 30 times the others. Least squares may hold it: one square outweighs many roundings."""
    histograms = watch(network, activations(network), images)
    for histogram in histograms.values():
        histogram.add(np.array([30 * histogram.high], np.float32))
    expected = logits_of(network, images)
    found = {
        ranges: divergence(
            expected, logits_of(quantize_static(network, histograms=histograms, ranges=ranges).network, images)
        )
        for ranges in ("minmax", "percentile")
    }
    assert found["percentile"] < 0.5 * found["minmax"]


def test_divergence_is_the_mean_of_kullback_and_leiblers():
    first, second = np.array([[0.0, 0.0], [3.0, 1.0]]), np.array([[1.0, 0.0], [3.0, 1.0]])
    p, q = np.array([0.5, 0.5]), np.exp([1.0, 0.0]) / np.exp([1.0, 0.0]).sum()
    assert divergence(first, second) == pytest.approx((p * np.log(p / q)).sum() / 2)


def test_bias_of_a_nearly_dead_channel_survives():
    """A channel with weights of 1e-9 and a bias of 3 gives out 3, also in int8 (onnxruntime once clipped the bias)."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 32, 3)).eval()
    with torch.no_grad():
        for conv in (model[0], model[2]):
            conv.weight[1] *= 1e-9
            conv.bias[1] = 3.0
            conv.weight[2] = 0.0
            conv.bias[2] = 1.5
    images = torch.randn(16, 3, 16, 16)
    quantized = quantize_static(export_network(model, (3, 16, 16)), [images.numpy()])
    session = onnxruntime.InferenceSession(quantized.network.SerializeToString())
    got = session.run(None, {"input": images.numpy()})[0]
    expected = model(images).detach().numpy()
    np.testing.assert_allclose(got[:, 1:3], expected[:, 1:3], atol=0.05)
    assert np.square(got - expected).mean() < 1e-2 * np.square(expected).mean()


def test_what_cannot_be_quantized_is_refused(network, images):
    with pytest.raises(SlimzooError, match="the calibration images hold values that are not finite"):
        quantize_static(network, [np.full((4, *SIZE), np.nan, dtype=np.float32)])
    with pytest.raises(UsageError, match="unknown ranges 'mean'; it must be one of auto, minmax, percentile, mse"):
        quantize_static(network, images, ranges="mean")
    with pytest.raises(UsageError, match="the network has no layer 'conv9'; did you mean 'conv1'"):
        quantize_static(network, images, keep=["conv9"])
    with pytest.raises(UsageError, match=r"no layer 'x'; its layers are conv1, layer1\.0\.conv1, .* and 6 more"):
        quantize_static(network, images, keep=["x"])
    everything = [node.name for node in network.graph.node]
    with pytest.raises(SlimzooError, match="asked for int8, got 0 of 10 layers in int8"):
        quantize_static(network, images, keep=everything)


def test_logits_are_not_rounded(network, images):
    """They take more values than a byte has, and the layer that makes them still runs on integers."""
    found = quantize_static(network, images)
    [last] = [node for node in found.network.graph.node if network.graph.output[0].name in node.output]
    assert last.op_type == "Gemm"
    assert last.name in integer_layers(found.network)
    many = np.random.default_rng(0).normal(size=(400, *SIZE)).astype(np.float32)
    assert len(np.unique(logits_of(found.network, [many])[:, 0])) > 256


def test_results_of_a_transformers_products_stay_in_float(images):
    """Scores of attention that reach far, rounded to 255 steps, would be lost: softmax raises e to them."""
    torch.manual_seed(0)
    model = create_model("vit_tiny", image_size=32, num_classes=10, depth=2).eval()
    with torch.no_grad():
        model.head.weight.mul_(20)
        for block in model.blocks:
            block.attn.qkv.weight[: 2 * 192].mul_(6)
    network = export_network(model, SIZE)
    quantized = quantize_static(network, images)
    assert quantized.int8_macs == 1
    made = {node.output[0]: node.op_type for node in quantized.network.graph.node}
    rounded = [made.get(n.input[0]) for n in quantized.network.graph.node if n.op_type == "QuantizeLinear"]
    assert rounded
    assert not {"MatMul", "Gemm"} & set(rounded)
    expected, got = logits_of(network, images), logits_of(quantized.network, images)
    assert divergence(expected, got) < 0.025
