"""A network from elsewhere with our operators and names: opset, stored constants, onnxruntime's folding, free names."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.graph.interface import IR_VERSION, LOGITS
from compress.graph.network import OPSET
from compress.graph.nodes import set_nodes_
from compress.graph.operators import STANDARD, all_nodes
from compress.graph.preprocessing import AROUND, INPUT, PIXELS, PROBABILITIES
from zoo.errors import SlimzooError, first_line

RENAMED = "network/"  # before names that mean something else here
FUSED = re.compile(r"^(ConvBnFusion_(W|B|BN_B)_)+")  # what onnxruntime puts before the names of folded weights
# it would make a Gemm between Reshapes of each product of a transformer, whose names and weights are then not its own
UNWANTED = ("MatMulAddFusion",)
# attributes of a Constant node, and what they hold
CONSTANTS: Mapping[str, Any] = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def store_constants_(graph: onnx.GraphProto) -> None:
    """Constant nodes become initializers."""
    kept = []
    for node in graph.node:
        (attribute, *_) = node.attribute or [None]
        if node.op_type != "Constant" or attribute is None or attribute.name not in CONSTANTS:
            kept.append(node)
            continue
        values = helper.get_attribute_value(attribute)
        tensor = graph.initializer.add()
        if isinstance(values, TensorProto):
            tensor.CopyFrom(values)
        else:
            tensor.CopyFrom(numpy_helper.from_array(np.array(values, CONSTANTS[attribute.name])))
        tensor.name = node.output[0]
    set_nodes_(graph, kept)


def opset_of(network: onnx.ModelProto) -> int:
    return next((opset.version for opset in network.opset_import if opset.domain in STANDARD), 1)


def at_opset(network: onnx.ModelProto, where: str | Path) -> tuple[onnx.ModelProto, int | None]:
    """The network with operators of `OPSET` or later, and what it had before if that was less."""
    version = opset_of(network)
    if version >= OPSET:
        return network, None
    network.ir_version = max(network.ir_version, IR_VERSION)
    try:
        return onnx.version_converter.convert_version(network, OPSET), version
    except Exception as error:  # the converter's own kinds
        raise SlimzooError(
            f"{where} has operators of opset {version}, which onnx cannot convert to {OPSET}: {first_line(error)}; "
            f"export it with opset {OPSET}"
        ) from error


def simplified(network: onnx.ModelProto, where: str | Path) -> onnx.ModelProto:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder, "simplified.onnx"))
        try:
            onnxruntime.InferenceSession(
                network.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(UNWANTED),
            )
        except Exception as error:
            raise SlimzooError(f"{where} does not open in onnxruntime: {first_line(error)}") from error
        simplified = onnx.load(options.optimized_model_filepath)
    used = {node.domain or "" for node in all_nodes(simplified.graph)}
    opsets = [opset for opset in simplified.opset_import if opset.domain in used or not opset.domain]
    del simplified.opset_import[:]
    simplified.opset_import.extend(opsets)
    return simplified


def rename_(graph: onnx.GraphProto) -> None:
    """Input and output as ours are called, folded weights as they were; each node by a name that no other has."""
    tensors = {name for node in graph.node for name in (*node.input, *node.output) if name}
    tensors |= {tensor.name for tensor in graph.initializer}
    new = {graph.input[0].name: INPUT, graph.output[0].name: LOGITS}
    taken = {INPUT, LOGITS, PIXELS, PROBABILITIES}
    for name in sorted(tensors - new.keys()):
        plain = FUSED.sub("", name)
        wanted = plain if plain not in tensors else name
        new[name] = _free(f"{RENAMED}{wanted}" if wanted in taken or wanted.startswith(AROUND) else wanted, taken)
    _rename_tensors_(graph, new)
    nodes: set[str] = set()
    for number, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{number}"
        node.name = _free(f"{RENAMED}{name}" if name.startswith(AROUND) else name, nodes)


def _rename_tensors_(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    for node in all_nodes(graph):
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new.get(name, name)
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = new.get(value.name, value.name)


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number after it where it is taken; it is taken then."""
    free, number = name, 1
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free)
    return free
