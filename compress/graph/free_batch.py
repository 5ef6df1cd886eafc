"""Make an ONNX file that fixes its batch take any number of images."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.graph.nodes import set_nodes_


def set_batch_free_(graph: onnx.GraphProto) -> int | None:
    """Free a fixed batch in the input, the output and where a Reshape repeats it, and return what it was."""
    fixed = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed:
        free_reshapes_(graph, fixed)
    for value in (graph.input[0], graph.output[0]):
        for first in value.type.tensor_type.shape.dim[:1]:
            first.Clear()
            first.dim_param = "batch"
    del graph.value_info[:]  # of the fixed batch
    return fixed or None


def free_reshapes_(graph: onnx.GraphProto, fixed: int) -> None:
    """Open the first dimension of each Reshape to (fixed, ...), or keep its input's where another is open."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in stored or node.input[0] in stored:
            continue
        shape = numpy_helper.to_array(stored[node.input[1]]).copy()
        literal = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute) and 0 in shape
        if shape.ndim == 1 and shape.size and shape[0] == fixed and not literal:
            shape[0] = 0 if min(shape) < 1 else -1
            del node.attribute[:]  # `allowzero`, by which 0 would not be the size that is there
            name = f"{node.input[1]}/any_batch_{number}"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name


def expand_stored_parts_(graph: onnx.GraphProto) -> None:
    """Repeat a stored tensor that is concatenated to each image, a class token, as often as there are images.

    A file with a batch of 1 holds it once, and where it was repeated is computed already.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        flowing = [name for name in node.input if name not in stored]
        if node.op_type == "Concat" and axis != 0 and flowing:
            for place, name in enumerate(node.input):
                dims = list(stored[name].dims) if name in stored else []
                if len(dims) < 3 or dims[0] != 1:  # shapes are concatenated too
                    continue
                own = f"{node.name or node.output[0]}/token_{place}"
                graph.initializer.append(numpy_helper.from_array(np.array(dims[1:], np.int64), f"{own}/rest"))
                nodes += [
                    helper.make_node("Shape", flowing[:1], [f"{own}/batch"], f"{own}/batch", start=0, end=1),
                    helper.make_node(
                        "Concat", [f"{own}/batch", f"{own}/rest"], [f"{own}/shape"], f"{own}/shape", axis=0
                    ),
                    helper.make_node("Expand", [name, f"{own}/shape"], [own], own),
                ]
                node.input[place] = own
        nodes.append(node)
    set_nodes_(graph, nodes)
