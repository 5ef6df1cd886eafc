"""Networks from elsewhere: graphs as other exporters write them, against the files themselves in onnxruntime."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax
from torch import nn

from compress.graph.foreign import normalized
from compress.graph.layers import macs_by_layer
from compress.quantization.ptq import quantize_static
from zoo.errors import SlimzooError, UsageError
from zoo.files.onnx_file import load_onnx

SIDE, CLASSES = 12, 5


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, values):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(values)))


def build(
    *, batch=1, opset=11, ir=6, last="Softmax", given=None, reshape=(1, 16), stored_as_inputs=False, extra=(), kind=None
):
    """Conv, BatchNorm, ReLU twice, a mean and a Gemm, as a Caffe converter of 2020 would write them: without names."""
    rng = np.random.default_rng(0)

    def weight(*shape):
        return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:]) or 1), shape).astype(np.float32)

    stored, nodes, x, channels = {}, [constant("flat", np.array(reshape))], "data", 3
    for i, width in enumerate((8, 16)):
        stored |= {f"w{i}": weight(width, channels, 3, 3)}
        stored |= {f"{name}{i}": rng.uniform(0.5, 2, width).astype(np.float32) for name in ("scale", "var")}
        stored |= {f"{name}{i}": rng.normal(size=width).astype(np.float32) for name in ("shift", "mean")}
        nodes += [
            helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], kernel_shape=[3, 3], pads=[1] * 4, strides=[i + 1] * 2),
            helper.make_node(
                "BatchNormalization", [f"c{i}", *(f"{n}{i}" for n in ("scale", "shift", "mean", "var"))], [f"b{i}"]
            ),
            helper.make_node("Relu", [f"b{i}"], [f"r{i}"]),
        ]
        x, channels = f"r{i}", width
    stored |= {"fc": 4 * weight(CLASSES, 16), "bias": rng.normal(size=CLASSES).astype(np.float32)}
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "flat"], ["features"]),
        helper.make_node("Gemm", ["features", "fc", "bias"], ["pixels"], transB=1),  # a name that means pixels to us
    ]
    if last:
        nodes += [helper.make_node(last, ["pixels"], ["answer"], **({"axis": 1} if last == "Softmax" else {}))]
    nodes += extra
    inputs = [value("data", given or [batch, 3, SIDE, SIDE], kind or TensorProto.FLOAT)]
    if stored_as_inputs:
        inputs += [value(name, array.shape) for name, array in stored.items()]
    graph = helper.make_graph(
        nodes,
        "net",
        inputs,
        [value("answer" if last else "pixels", [batch, CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def run(model, images, size=None):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    pieces = np.split(images, len(images) // size) if size else [images]
    return np.concatenate([session.run(None, {name: piece})[0] for piece in pieces])


@pytest.fixture
def images():
    return np.random.default_rng(1).standard_normal((8, 3, SIDE, SIDE)).astype(np.float32)


def kinds(network):
    return {node.op_type for node in network.graph.node}


@pytest.mark.parametrize("batch", [1, 4, "N"])
@pytest.mark.parametrize(("opset", "ir", "stored_as_inputs"), [(9, 3, True), (11, 6, False), (17, 8, False)])
def test_an_old_file_answers_the_same(images, batch, opset, ir, stored_as_inputs):
    reshape = (batch, 16) if isinstance(batch, int) else (-1, 16)
    model = build(batch=batch, opset=opset, ir=ir, stored_as_inputs=stored_as_inputs, reshape=reshape)
    before = model.SerializeToString()
    found = normalized(model, "net.onnx")
    assert model.SerializeToString() == before
    for size in (1, 3, 8):
        expected = run(model, images, size=batch if isinstance(batch, int) else None)[:size]
        got = run(found.network, images[:size])
        np.testing.assert_allclose(softmax(got, axis=1), expected, atol=1e-6)
        np.testing.assert_allclose(
            got, run(found.original, images, size=batch if batch != "N" else None)[:size], atol=1e-4 * got.std()
        )
    assert (found.input_size, found.outputs) == ((3, SIDE, SIDE), CLASSES)
    assert [opset.version for opset in found.network.opset_import] == [20]
    assert not kinds(found.network) & {"Constant", "BatchNormalization", "Softmax", "Identity"}
    graph = found.network.graph
    assert ([i.name for i in graph.input], [o.name for o in graph.output]) == (["input"], ["logits"])
    names = [node.name for node in graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert {tensor.name for tensor in graph.initializer} >= {"w0", "w1", "fc", "bias"}
    assert sum(macs_by_layer(found.network).values()) == 144 * 8 * 27 + 36 * 16 * 72 + 16 * CLASSES
    assert any("Softmax" in change for change in found.changes)
    assert any(f"opset {opset} to 20" in change for change in found.changes)
    assert "folded 2 BatchNormalization" in found.changes


def test_it_can_be_quantized(images):
    network = normalized(build(), "net.onnx").network
    quantized = quantize_static(network, [images])
    assert quantized.int8_layers == quantized.layers == 3
    expected, got = run(network, images), run(quantized.network, images)
    assert np.square(got - expected).mean() < 0.03 * np.square(expected).mean()


def test_what_is_in_our_form_stays():
    first = normalized(build(), "net.onnx").network
    again = normalized(first, "again.onnx")
    assert again.changes == ()
    assert [(n.name, n.op_type) for n in again.network.graph.node] == [(n.name, n.op_type) for n in first.graph.node]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"given": [1, SIDE, SIDE, 3]}, r"takes float \(1, 12, 12, 3\), channels last; wanted float32 \(batch, C, H"),
        ({"given": [1, 4, SIDE, SIDE]}, r"takes float \(1, 4, 12, 12\); wanted float32 \(batch, C, H, W\), C 1 or 3"),
        ({"given": [1, 3, "h", "w"]}, "images of any size; wanted one size"),
        ({"kind": TensorProto.UINT8}, "takes uint8"),
        ({"last": "Sigmoid"}, "ends in a Sigmoid"),
    ],
)
def test_inputs_and_outputs_that_are_refused(arguments, said):
    with pytest.raises(UsageError, match=said) as told:
        normalized(build(**arguments), "net.onnx")
    assert "\n" not in str(told.value)


def test_two_inputs_are_refused():
    model = build()
    model.graph.input.append(value("mask", [1, 1]))
    model.graph.node[-1].output[0] = "unmasked"
    model.graph.node.append(helper.make_node("Add", ["unmasked", "mask"], ["answer"]))
    with pytest.raises(UsageError, match="has the inputs data, mask and the outputs answer; wanted one of each"):
        normalized(model, "net.onnx")


def test_quantized_and_half_precision_files_are_refused(images):
    network = normalized(build(), "net.onnx").network
    with pytest.raises(UsageError, match=r"int8\.onnx is quantized already"):
        normalized(quantize_static(network, [images]).network, "int8.onnx")
    half = onnx.ModelProto.FromString(network.SerializeToString())
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    with pytest.raises(UsageError, match=r"half\.onnx holds float16 weights \(.+\); wanted float32"):
        normalized(half, "half.onnx")


def test_a_batch_that_is_part_of_the_computation_is_refused():
    """The mean over the images of a batch: with a batch of 1 nothing, with others wrong."""
    model = build(
        batch=2,
        last=None,
        reshape=(2, 16),
        extra=[
            helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["pixels", "mean"], ["answer"]),
        ],
    )
    model.graph.output[0].name = "answer"
    with pytest.raises((UsageError, SlimzooError), match=r"net\.onnx.*images"):
        normalized(model, "net.onnx")
    model = build(
        reshape=(1, 16),
        last=None,
        extra=[
            constant("column", np.array([5, 1], np.int64)),
            helper.make_node("Reshape", ["pixels", "column"], ["upright"]),
            helper.make_node("Transpose", ["upright"], ["answer"], perm=[1, 0]),
        ],
    )
    model.graph.output[0].name = "answer"
    with pytest.raises(
        UsageError, match=r"computes its images for 1 at a time, .* export it again with a dynamic batch"
    ):
        normalized(model, "net.onnx")


class Small(nn.Module):
    """A convolution that repeats a class token for its images, and attention: what torch's exporters write of a ViT."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 4, 4)
        self.norm0 = nn.BatchNorm2d(64)
        self.token = nn.Parameter(torch.randn(1, 1, 64))
        self.qkv, self.norm, self.head = nn.Linear(64, 192), nn.LayerNorm(64), nn.Linear(64, CLASSES)

    def forward(self, x):
        x = self.norm0(self.patches(x)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        B, L, D = x.shape
        q, k, v = self.qkv(x).reshape(B, L, 3, 2, D // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, D)
        return self.head(self.norm(x)[:, 0])


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_transformer_that_torch_exported_for_one_image(tmp_path, images, dynamo):
    torch.manual_seed(0)
    model, path = Small().eval(), tmp_path / "vit.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters that are old, or new
        extra = {"external_data": True} if dynamo else {"do_constant_folding": False}
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, SIDE, SIDE),),
            path,
            dynamo=dynamo,
            opset_version=18 if dynamo else 14,
            input_names=["x"],
            verbose=False,
            **extra,
        )
    found = normalized(load_onnx(path), "vit.onnx")
    expected = model(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(run(found.network, images), expected, atol=1e-4 * expected.std())
    assert "made its batch of 1 any number" in found.changes
    assert "BatchNormalization" not in kinds(found.network)
    assert "patches" in {node.name for node in found.network.graph.node}
    assert quantize_static(found.network, [images]).int8_layers >= 3
