"""float16 and bfloat16 against NumPy's and torch's own, and values that float16 does not hold."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from compress.benchmark.runtimes import precision_of
from compress.graph.network import export_network
from compress.quantization.calibrate import watch
from compress.quantization.fidelity import logits_of
from compress.quantization.half import LARGEST, to_bfloat16, to_float16
from compress.quantization.ptq import activations
from compress.quantization.rounding import with_weights
from zoo.create import create_model
from zoo.errors import SlimzooError
from zoo.models.registry import model_entry

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)


def stored(network):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}


def exported(name):
    torch.manual_seed(0)
    return export_network(create_model(name, **model_entry(name).tiny).eval(), (3, 32, 32))


@pytest.fixture(scope="module", params=["mobilenet_v3_small", "vit_tiny"])
def network(request):
    return exported(request.param)


def test_float16_is_numpys(network):
    found = to_float16(network, [IMAGES])
    assert (found.converted_layers, found.macs, found.kept) == (found.layers, 1.0, ())
    assert precision_of(found.network) == "fp16"
    assert found.nodes["Cast"] == 2  # of the input and of the logits, which stay float32
    for value in (found.network.graph.input[0], found.network.graph.output[0]):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    before, after = stored(network), stored(found.network)
    for name, values in before.items():
        if values.dtype == np.float32 and values.ndim > 1:
            assert after[name].dtype == np.float16
            normal = np.abs(values) > 6e-8
            np.testing.assert_array_equal(after[name][normal], values.astype(np.float16)[normal])
    expected, got = logits_of(network, [IMAGES]), logits_of(found.network, [IMAGES])
    np.testing.assert_allclose(got, expected, atol=0.01 * expected.std())


def test_bfloat16_is_torchs_and_is_opened_as_float32(network, tmp_path):
    found = to_bfloat16(network)
    assert precision_of(found.network) == "bf16"
    rounded = {
        name: torch.from_numpy(values.copy()).bfloat16().float().numpy()
        for name, values in stored(network).items()
        if values.dtype == np.float32 and values.ndim > 1
    }
    for name, values in rounded.items():
        np.testing.assert_array_equal(stored(found.network)[f"{name}_bf16"].astype(np.float32), values)
    np.testing.assert_array_equal(
        logits_of(found.network, [IMAGES]), logits_of(with_weights(network, rounded), [IMAGES])
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(found.network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    opened = onnx.load(tmp_path / "opened.onnx").graph
    assert "Cast" not in {node.op_type for node in opened.node}
    assert all(tensor.data_type != TensorProto.BFLOAT16 for tensor in opened.initializer)


def test_bfloat16_of_ties_and_extremes():
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1e-40, 0, -0.0, 3e38, np.inf], np.float32)
    node = onnx.helper.make_node("Gemm", ["input", "w"], ["logits"], name="fc")
    shapes = {"input": ["batch", 8], "logits": ["batch", 64]}
    given, result = (onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    weight = np.tile(values[:, None], 64)
    graph = onnx.helper.make_graph([node], "one", [given], [result], [numpy_helper.from_array(weight, "w")])
    one = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    got = stored(to_bfloat16(one).network)["w_bf16"].view(np.uint16)
    np.testing.assert_array_equal(got, torch.from_numpy(weight).bfloat16().view(torch.uint16).numpy())


@pytest.mark.parametrize("name", ["resnet20", "lenet5_caffe", "vit_tiny"])
def test_both_take_half_the_bytes(name):
    model = create_model(name, image_size=32, depth=2) if name == "vit_tiny" else create_model(name)
    size = (1, 28, 28) if name == "lenet5_caffe" else (3, 32, 32)
    network = export_network(model.eval(), size)
    images = np.zeros((1, *size), np.float32)
    for found in (to_float16(network, [images]), to_bfloat16(network)):
        assert 0.49 < found.network.ByteSize() / network.ByteSize() < 0.55


def beyond(weight_scale, then):
    """Two branches of convolutions whose sum is far beyond float16, read twice, and brought back."""

    class Beyond(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.large = torch.nn.Conv2d(3, 64, 3), torch.nn.Conv2d(64, 8, 1)
            self.back, self.other, self.fc = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(8, 8, 1), torch.nn.Linear(8, 4)

        def forward(self, x):
            x = torch.relu(self.large(self.first(x)))
            x = self.back(x) + self.other(x)
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    model = Beyond().eval()
    with torch.no_grad():
        model.large.weight.mul_(weight_scale)
        for conv in (model.back, model.other):
            conv.weight.mul_(then)
    return export_network(model, (3, 32, 32))


@pytest.mark.parametrize("scale", [1e5, 1e7], ids=["activations", "weights too"])
def test_what_float16_does_not_hold_stays_in_float32(scale):
    """By ONNX's own arithmetic, in which float16 is float16: onnxruntime on a CPU may compute in more."""
    network = beyond(scale, 1 / scale)
    assert max(seen.high for seen in watch(network, activations(network), [IMAGES]).values()) > LARGEST
    found = to_float16(network, [IMAGES])
    onnx.checker.check_model(found.network, full_check=True)
    assert {"large", "back", "other"} <= set(found.kept)
    assert not {"first", "fc"} & set(found.kept)
    assert found.converted_layers == 2
    assert (np.abs(stored(network)["large.weight"]).max() > LARGEST) == (scale == 1e7)
    assert stored(found.network)["large.weight"].dtype == np.float32
    expected = logits_of(network, [IMAGES])
    for got in (logits_of(found.network, [IMAGES]), ReferenceEvaluator(found.network).run(None, {"input": IMAGES})[0]):
        np.testing.assert_allclose(got, expected, atol=0.02 * expected.std())


def test_logits_beyond_float16_stay():
    network = beyond(1e5, 100.0)
    found = to_float16(network, [IMAGES])
    expected = logits_of(network, [IMAGES])
    assert np.abs(expected).max() > LARGEST
    (got,) = ReferenceEvaluator(found.network).run(None, {"input": IMAGES})
    np.testing.assert_allclose(got, expected, atol=0.02 * expected.std())


def test_nothing_in_float16_is_refused():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    with torch.no_grad():
        model[0].weight.mul_(1e7)
    with pytest.raises(SlimzooError, match=r"asked for fp16, got 0 of 1 layers and 0\.0% of the MACs in it"):
        to_float16(export_network(model, (3, 32, 32)), [IMAGES])
