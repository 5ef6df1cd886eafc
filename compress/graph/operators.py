"""The operators of an ONNX graph from elsewhere: which are refused by name, and Gemm in the one form we know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.graph.layers import LAYERS
from compress.graph.nodes import set_nodes_
from zoo.errors import UsageError

STANDARD = ("", "ai.onnx")  # the domains of what every runtime knows
# what onnxruntime puts in when it saves the graph that it runs
RUNTIME_S_OWN = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
KINDS: Mapping[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
}


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """List all nodes, also those of the branches and loops inside."""
    for node in graph.node:
        yield node
        for inner in graphs_of(node):
            yield from all_nodes(inner)


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The branches of an If, the body of a Loop or Scan."""
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)


def check_float(model: onnx.ModelProto, where: str | Path) -> None:
    """Refuse what is no float32 network any more.

    Raises:
        UsageError: it is quantized, or holds weights of another precision.
    """
    for node in all_nodes(model.graph):
        kind = node.op_type
        if "Quantize" in kind or kind.startswith(("QLinear", "QGemm")) or kind.endswith(("Integer", "NBits")):
            raise UsageError(
                f"{where} is quantized already (it has {kind}); use the float32 network that it was made from"
            )
    for tensor in _tensors(model.graph):
        if tensor.data_type in KINDS and int(np.prod(tensor.dims)) > 1:
            kind = KINDS[tensor.data_type]
            raise UsageError(
                f"{where} holds {kind} weights ({tensor.name or 'a constant'}); wanted float32: export it in float32"
            )


def check_standard(model: onnx.ModelProto, where: str | Path) -> None:
    """Refuse operators that are not ONNX's own: what they multiply is in no shape inference, and runtimes differ.

    Raises:
        UsageError: there is one; its name is told.
    """
    for node in all_nodes(model.graph):
        if node.domain in RUNTIME_S_OWN:
            raise UsageError(
                f"{where} has {node.domain}'s {node.op_type}, which onnxruntime writes when it saves an optimized "
                "graph; use the file that it was made from, or export it again"
            )
        if node.domain not in STANDARD:
            raise UsageError(
                f"{where} has {node.domain}'s {node.op_type}; wanted operators of ONNX itself (domain ai.onnx): export "
                "the network without it"
            )


def check_loops(model: onnx.ModelProto, where: str | Path) -> None:
    """Refuse layers inside branches and loops: how often they run depends on the image.

    Raises:
        UsageError: there is one.
    """
    for node in model.graph.node:
        for graph in graphs_of(node):
            inside = next((n for n in all_nodes(graph) if n.op_type in LAYERS), None)
            if inside is not None:
                raise UsageError(
                    f"{where} has a {inside.op_type} inside a {node.op_type}, where nobody knows how often it runs; "
                    "wanted layers that run once for each image: export it without control flow"
                )


def plain_gemms_(graph: onnx.GraphProto) -> None:
    """Each Gemm whose weight is stored becomes A B + C or A B' + C, with a bias of one value an output.

    Factors go into the weight and the bias, a transposed A becomes a Transpose before it.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(graph.node):
        weight = stored.get(node.input[1]) if node.op_type == "Gemm" else None
        if weight is not None and weight.dtype == np.float32:
            given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            outputs = weight.shape[0 if given.get("transB") else 1]
            own = f"{node.name or node.output[0]}/{number}"
            _scale_(graph, node, 1, weight, given.get("alpha", 1.0), weight.shape, f"{own}/weight")
            bias = stored.get(node.input[2]) if len(node.input) > 2 else None
            row = (1,) * (bias.ndim - 1) if bias is not None else ()
            if bias is not None and bias.shape in ((), (*row, 1), (*row, outputs)):
                _scale_(graph, node, 2, bias, given.pop("beta", 1.0), (outputs,), f"{own}/bias")
            if given.get("transA"):
                turned = f"{own}/turned"
                nodes.append(helper.make_node("Transpose", node.input[:1], [turned], turned, perm=[1, 0]))
                node.input[0] = turned
            del node.attribute[:]
            kept = {name: given[name] for name in ("transB", "beta") if name in given and node.input[2:]}
            kept |= {"transB": given["transB"]} if "transB" in given else {}
            node.attribute.extend(helper.make_attribute(name, value) for name, value in kept.items())
        nodes.append(node)
    set_nodes_(graph, nodes)


def _scale_(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    place: int,
    values: NDArray[np.float32],
    factor: float,
    shape: tuple[int, ...],
    name: str,
) -> None:
    """Let the node read the values times the factor, in that shape; others that read them go on as before."""
    if factor != 1 or values.shape != shape:
        scaled = np.broadcast_to(values.reshape(values.shape[-1:]) if values.ndim != len(shape) else values, shape)
        graph.initializer.append(numpy_helper.from_array((scaled * np.float32(factor)).astype(np.float32), name))
        node.input[place] = name


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Initializers and the values of Constant nodes."""
    yield from graph.initializer
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
