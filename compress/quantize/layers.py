"""The layers of an ONNX network: what each multiplies, and which of them onnxruntime really runs on integers."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import onnx

PRODUCTS = ("Conv", "Gemm", "MatMul")
# what onnxruntime makes of a product between QuantizeLinear and DequantizeLinear
INTEGER = (
    "ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearConv",
    "QLinearMatMul",
)  # fmt: skip


def macs_by_layer(network: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of each convolution and matrix product for one image, by the node's name."""
    single = onnx.ModelProto()
    single.CopyFrom(network)
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del single.graph.value_info[:]  # of any batch
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return {
        node.name: math.prod(shapes[node.output[0]]) * _inner(node, [shapes.get(name, ()) for name in node.input])
        for node in inferred.node
        if node.op_type in PRODUCTS
    }


def _inner(node: onnx.NodeProto, shapes: list[tuple[int, ...]]) -> int:
    """How many products one output element sums."""
    if node.op_type == "Conv":
        return math.prod(shapes[1][1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return shapes[0][-2 if transposed else -1]


def integer_layers(network: onnx.ModelProto) -> set[str]:
    """Names of the products that run on integers in onnxruntime on this machine, by the graph that it runs.

    A product between QuantizeLinear and DequantizeLinear is not one of them until it is fused with these.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # not all: layouts of the last level get other nodes
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimized = onnx.load(options.optimized_model_filepath)
    return {node.name for node in optimized.graph.node if node.op_type in INTEGER}
