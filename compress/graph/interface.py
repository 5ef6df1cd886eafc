"""What goes into a network from elsewhere and comes out of it: one input of images, logits as its one output."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from compress.graph.nodes import set_nodes_
from compress.graph.operators import all_nodes, graphs_of
from compress.graph.preprocessing import INPUT
from zoo.errors import UsageError

IR_VERSION = 10  # of opset 20
LOGITS = "logits"
THROUGH = ("Identity", "Dropout")  # what may stand after the last operator, and does nothing


def drop_idle_inputs_(graph: onnx.GraphProto) -> None:
    """Drop inputs that are none: files of before 2019 list their weights there; some list what nothing reads.

    Sizes of 0 and -1 are those of converters from MXNet and Paddle for any size.
    """
    stored = {tensor.name for tensor in graph.initializer}
    read = {name for node in all_nodes(graph) for name in node.input}
    kept = [value for value in graph.input if value.name in read - stored]
    del graph.input[:]
    graph.input.extend(kept)
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value <= 0 and not dim.dim_param:
                dim.Clear()


def image_size_(graph: onnx.GraphProto, where: str | Path, size: tuple[int, int] | None) -> tuple[int, tuple[int, int]]:
    """C and (H, W) of the only input; where the file leaves H and W open, they become `size`."""
    if len(graph.input) != 1 or len(graph.output) != 1:
        ins, outs = ([value.name for value in values] for values in (graph.input, graph.output))
        raise UsageError(
            f"{where} has the inputs {', '.join(ins)} and the outputs {', '.join(outs)}; wanted one of each: images "
            "(batch, C, H, W) and answers (batch, classes)"
        )
    given = graph.input[0].type.tensor_type
    dims = list(given.shape.dim)
    shape = [dim.dim_value or dim.dim_param or "?" for dim in dims]
    said = f"{where} takes {TensorProto.DataType.Name(given.elem_type).lower()} ({', '.join(map(str, shape))})"
    wanted = "wanted float32 (batch, C, H, W), C 1 or 3"
    if not graph.input[0].type.HasField("tensor_type"):
        raise UsageError(f"{where} takes no tensor but a {graph.input[0].type.WhichOneof('value')}; {wanted}")
    if given.elem_type != TensorProto.FLOAT or len(dims) != 4:
        raise UsageError(f"{said}; {wanted}")
    if dims[3].dim_value in (1, 3) and dims[1].dim_value not in (1, 3):
        raise UsageError(f"{said}, channels last; {wanted}: export it with channels first (tf2onnx: --inputs-as-nchw)")
    if dims[1].dim_value not in (1, 3):
        raise UsageError(f"{said}; {wanted}")
    for dim, pixels in zip(dims[2:], size or (0, 0), strict=True):
        if not dim.dim_value and pixels:
            dim.dim_value = pixels
    if not (dims[2].dim_value and dims[3].dim_value):
        raise UsageError(f"{said}, images of any size; wanted one size: its preprocessing says which")
    return dims[1].dim_value, (dims[2].dim_value, dims[3].dim_value)


def flatten_(graph: onnx.GraphProto) -> None:
    """Answers (batch, K, 1, 1), of networks that end in a convolution, become (batch, K)."""
    answer = graph.output[0]
    dims = answer.type.tensor_type.shape.dim
    if len(dims) == 4 and [dim.dim_value for dim in dims[2:]] == [1, 1]:
        flat = f"{answer.name}/flat"
        graph.node.append(helper.make_node("Flatten", [answer.name], [flat], flat, axis=1))
        answer.name = flat
        del dims[2:]


def strip_softmax_(graph: onnx.GraphProto, where: str | Path) -> bool:
    """Make what enters a final Softmax the output; whether there was one."""
    makers = {output: node for node in graph.node for output in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in THROUGH:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in ("Softmax", "Sigmoid"):
        return False
    if node.op_type == "Sigmoid":
        raise UsageError(f"{where} ends in a Sigmoid, which judges each class by itself; wanted one class an image")
    graph.output[0].name = node.input[0]
    _drop_unused_(graph)
    return True


def _drop_unused_(graph: onnx.GraphProto) -> None:
    """Drop nodes on which the output does not depend."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            needed |= {name for inner in graphs_of(node) for each in all_nodes(inner) for name in each.input}
            kept.append(node)
    set_nodes_(graph, reversed(kept))


def declare_(network: onnx.ModelProto, input_size: tuple[int, int, int], outputs: int) -> None:
    graph = network.graph
    del graph.input[:], graph.output[:], graph.value_info[:], network.metadata_props[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *input_size]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", outputs]))
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    network.doc_string = graph.doc_string = ""
    network.ir_version = max(network.ir_version, IR_VERSION)
