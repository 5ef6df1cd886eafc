"""The layers of an ONNX network: what each multiplies, and which of them onnxruntime really runs on integers."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from zoo.files.onnx_session import open_session

PRODUCTS = ("Conv", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
ROUNDED = (*PRODUCTS, "ConvTranspose")  # whose weights become integers; onnxruntime runs the last on floats (1.31)
LAYERS = (*ROUNDED, *RECURRENT)  # all that multiply
# what onnxruntime makes of a product between QuantizeLinear and DequantizeLinear, or whose input it quantizes itself
INTEGER = tuple(
    (
        "ConvInteger DynamicQuantizeLSTM DynamicQuantizeMatMul MatMulInteger MatMulIntegerToFloat QGemm QLinearConv "
        "QLinearMatMul"
    ).split()
)


def macs_by_layer(network: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of convolutions, matrix products and recurrent layers for one image, by the node's name.

    Where no inference knows a shape, since it depends on values, the network is run on an image of zeros.
    """
    single = onnx.ModelProto()
    single.CopyFrom(network)
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del single.graph.value_info[:]  # of any batch
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    layers = [node for node in inferred.node if node.op_type in LAYERS]
    needed = {name for node in layers for name in (*_factors(node), node.output[0])}
    if unknown := sorted(name for name in needed if not all(shapes.get(name, ())) or name not in shapes):
        shapes |= _measured_shapes(single, unknown)
    return {
        node.name: _macs(node, [shapes[name] for name in _factors(node)], shapes[node.output[0]]) for node in layers
    }


def _factors(node: onnx.NodeProto) -> list[str]:
    """What a layer multiplies: its input and its weights."""
    return [node.input[0], *weight_names(node)]


def _measured_shapes(network: onnx.ModelProto, names: list[str]) -> dict[str, tuple[int, ...]]:
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(network)
    given = network.graph.input[0]
    zeros = np.zeros([dim.dim_value for dim in given.type.tensor_type.shape.dim], np.float32)
    made = {name for node in network.graph.node for name in node.output}
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names if n in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = open_session(watched.SerializeToString(), options)
    found = dict(
        zip([each.name for each in session.get_outputs()], session.run(None, {given.name: zeros}), strict=True)
    )
    return {name: values.shape for name, values in found.items()}


def weight_names(node: onnx.NodeProto) -> list[str]:
    """Name the weights that a layer multiplies by, stored or not; a recurrent one's are for its input and its state."""
    return list(node.input[1 : 3 if node.op_type in RECURRENT else 2])


def with_stored_weights(network: onnx.ModelProto) -> onnx.ModelProto:
    """Store recurrent layers' weights as they are multiplied: torch exports slices that order the gates."""
    stored = {tensor.name for tensor in network.graph.initializer}
    layers = [node for node in network.graph.node if node.op_type in RECURRENT]
    if not (made := sorted({name for node in layers for name in weight_names(node)} - stored)):
        return network
    inputs, outputs = ([value.name for value in each] for each in (network.graph.input, network.graph.output))
    makers = onnx.utils.Extractor(network).extract_model([], made)
    if set(inputs) & {name for node in makers.graph.node for name in node.input}:
        return network  # they depend on the image
    whole = onnx.utils.Extractor(network).extract_model([*inputs, *made], outputs)
    del whole.graph.input[len(inputs) :]
    values = ReferenceEvaluator(makers).run(None, {})
    whole.graph.initializer.extend(map(numpy_helper.from_array, values, made))
    return whole


def weights_by_layer(network: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The stored weight of each convolution and matrix product, by the node's name; of an int8 network as it acts."""
    stored = {tensor.name: tensor for tensor in network.graph.initializer}
    makers = {output: node for node in network.graph.node for output in node.output}
    found = {}
    for node in network.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        name = node.input[1]
        if name in stored:
            found[node.name] = numpy_helper.to_array(stored[name])
        elif name in makers and makers[name].op_type == "DequantizeLinear":
            whole = makers[name].input[0]
            kept = makers[whole].input[0] if whole in makers and makers[whole].op_type == "Cast" else whole
            if kept in stored:
                found[node.name] = _dequantized(stored[kept], makers[name], stored)
    return found


def _dequantized(
    tensor: onnx.TensorProto, node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]
) -> NDArray[np.float32]:
    values = numpy_helper.to_array(tensor)
    scale, *point = (numpy_helper.to_array(stored[name]) for name in node.input[1:])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    zero = point[0] if point else np.zeros_like(scale, dtype=values.dtype)
    if scale.size > 1:
        shape = [-1 if d == axis % values.ndim else 1 for d in range(values.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((values.astype(np.int32) - zero.astype(np.int32)) * scale, np.float32)


def _macs(node: onnx.NodeProto, shapes: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Count multiply-accumulates from the shapes of the inputs and of the first output."""
    if node.op_type in RECURRENT:  # every element of the sequence meets both weights
        return math.prod(shapes[0][:2]) * (math.prod(shapes[1]) + math.prod(shapes[2]))
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(shapes[1][1:])
    if node.op_type == "ConvTranspose":  # each input spreads over a kernel
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(output) * shapes[0][-2 if transposed else -1]


def integer_layers(network: onnx.ModelProto) -> set[str]:
    """Names of the products that run on integers in onnxruntime on this machine, by the graph that it runs.

    A product between QuantizeLinear and DequantizeLinear is not one of them until it is fused with these.
    """
    return {node.name for node in _optimized(network).node if node.op_type in INTEGER}


def integer_inputs(network: onnx.ModelProto) -> set[str]:
    """Names of the tensors that enter these products: of weights too, which keep theirs where a layer does not."""
    return {name for node in _optimized(network).node if node.op_type in INTEGER for name in node.input}


def _optimized(network: onnx.ModelProto) -> onnx.GraphProto:
    """What onnxruntime runs."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # not all: layouts of the last level get other nodes
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        open_session(network.SerializeToString(), options)
        return onnx.load(options.optimized_model_filepath).graph
