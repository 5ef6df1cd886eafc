"""Borders of max pooling as TensorFlow's "same" padding makes them, against torch."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, reference
from torch import nn
from torch.nn import functional as F

from compress.graph.foreign import normalized
from compress.graph.network import export_network
from compress.graph.pooling import pad_in_pooling_
from compress.quantization.half import to_float16
from compress.quantization.ptq import quantize_static

LEAST = (float("-inf"), torch.finfo(torch.float32).min)


class Pooled(nn.Module):
    """A convolution, a border of `value`, and max pooling, or what else reads the border too."""

    def __init__(self, value: float, border: tuple[int, ...] = (0, 1, 1, 0), *, also: bool = False, own: int = 0):
        super().__init__()
        self.conv, self.classifier = nn.Conv2d(3, 64, 3), nn.Linear(64, 16)
        self.value, self.border, self.also, self.own = value, border, also, own

    def forward(self, x):
        padded = F.pad(self.conv(x), self.border, value=self.value)
        pooled = F.max_pool2d(padded, 3, 2, padding=self.own)
        means = pooled.mean((2, 3))
        return self.classifier(means + padded.amax((2, 3)) if self.also else means)


def exported(model):
    network = export_network(model.eval(), (3, 17, 18))
    x = torch.randn(3, 3, 17, 18)
    with torch.no_grad():
        wanted = model(x).numpy()
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"input": x.numpy()})
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
    return network, Counter(node.op_type for node in network.graph.node)


@pytest.mark.parametrize("value", LEAST)
@pytest.mark.parametrize(("border", "own"), [((0, 1, 1, 0), 0), ((1, 0, 0, 1), 1), ((2, 1, 0, 2), 0)])
def test_a_border_of_the_least_becomes_the_poolings_own(value, border, own):
    network, operators = exported(Pooled(value, border, own=own))
    assert operators["Pad"] == 0
    left = {name for node in network.graph.node for name in node.input}
    assert {tensor.name for tensor in network.graph.initializer} <= left
    images = np.random.default_rng(0).normal(size=(2, 4, 3, 17, 18)).astype(np.float32)
    assert quantize_static(network, images).int8_macs == 1  # -inf has no integer


@pytest.mark.parametrize(
    "model",
    [
        Pooled(0.0),  # a zero can be the maximum, which onnxruntime forgets
        Pooled(LEAST[1], also=True),  # somebody else reads the border
        Pooled(LEAST[1], (3, 0, 0, 0)),  # wider than the kernel
        Pooled(LEAST[0], (2, 0, 0, 0), own=1),  # too wide together
    ],
)
def test_other_borders_stay(model):
    _, operators = exported(model)
    assert operators["Pad"] == 1


def test_a_border_of_zeros_in_a_file_from_elsewhere():
    """onnxruntime's own folding would take the zeros for -inf."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["pads"], value_ints=[0, 0, 1, 1, 0, 0, 1, 1]),
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["pooled"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["pooled"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["y"], transB=1),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("x", (3, 9, 8)), ("y", (5,)))
    )
    graph = helper.make_graph(nodes, "elsewhere", [x], [y], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    images = -np.abs(rng.normal(size=(2, 3, 9, 8))).astype(np.float32)
    (wanted,) = reference.ReferenceEvaluator(model).run(None, {"x": images})
    network = normalized(model, "elsewhere.onnx").network
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": images})[0], wanted, rtol=0, atol=1e-6)


def test_a_border_of_zeros_stays_in_float16():
    """The least that float16 holds is not folded either; and the weights are rounded."""
    torch.manual_seed(0)
    model = Pooled(0.0).eval()
    with torch.no_grad():
        model.conv.bias.fill_(-4.0)  # zeros are the maximum at the border
    network = export_network(model, (3, 17, 18))
    x = torch.randn(3, 3, 17, 18)
    half = to_float16(network, [x.numpy()]).network
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], model(x).numpy(), rtol=0, atol=5e-3)


def test_what_a_branch_reads_is_kept():
    """An initializer that only the branches of an If read, beside a border that becomes the pooling's own."""
    float_of = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    branch = helper.make_graph([helper.make_node("Identity", ["inside"], ["b"])], "b", [], [float_of("b", shape=[1])])
    nodes = [
        helper.make_node("Pad", ["x", "pads", "least"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["pooled"], kernel_shape=[3, 3]),
        helper.make_node("If", ["yes"], ["added"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["pooled", "added"], ["y"]),
    ]
    stored = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "least": np.float32(-np.inf), "yes": np.array(True)}
    stored["inside"] = np.ones(1, np.float32)
    x, y = float_of("x", shape=[1, 2, 5, 5]), float_of("y", shape=[1, 2, 5, 5])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    pad_in_pooling_(graph)
    assert {tensor.name for tensor in graph.initializer} == {"yes", "inside"}
    onnx.checker.check_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
