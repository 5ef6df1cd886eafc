"""Biases that fit into 32 bits.

An int8 layer adds its bias as an integer in units of (input scale x weight scale of the channel). A channel that
training left nearly dead has weights of 1e-8 beside a bias of 1, which in those units is beyond 32 bits: onnxruntime's
quantizer clips it, and the channel's constant output is lost. A pretrained EfficientNet-Lite0 has such channels in half
of its layers. Here their weight scale is raised until the bias fits: the weights, which say next to nothing, become
coarser, and the bias stays.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LARGEST = 2.0**30  # half of what 32 bits hold, the other half for the sum of products


def fit_biases_(quantized: onnx.ModelProto, network: onnx.ModelProto) -> int:
    """Raise weight scales of a QDQ graph where a bias does not fit; the number of channels that were mended.

    Args:
        quantized: from onnxruntime's static quantization of `network`, per channel; changed in place.
        network: the float graph, whose layers have the same names.
    """
    initializers = {tensor.name: tensor for tensor in quantized.graph.initializer}
    producers = {output: node for node in quantized.graph.node for output in node.output}
    floats = {tensor.name: tensor for tensor in network.graph.initializer}
    layers = {node.name: node for node in network.graph.node}
    mended = 0
    for node in quantized.graph.node:
        sources = [producers.get(name) for name in node.input]
        if node.op_type not in ("Conv", "Gemm") or len(sources) < 3:
            continue
        if any(source is None or source.op_type != "DequantizeLinear" for source in sources[:3]):
            continue
        names = [list(source.input) for source in sources[:3] if source is not None]
        if not all(name in initializers for name in (names[0][1], *names[1][:2], *names[2][:2])):
            continue
        weight, bias = (numpy_helper.to_array(floats[name]) for name in layers[node.name].input[1:3])
        axis = 1 if node.op_type == "Gemm" and not _transposed(node) else 0
        scale = numpy_helper.to_array(initializers[names[1][1]])
        input_scale = float(numpy_helper.to_array(initializers[names[0][1]]))
        if scale.ndim == 0 or len(scale) != len(bias):
            continue
        smallest = np.abs(bias) / (input_scale * LARGEST)
        empty = ~np.abs(weight).max(axis=tuple(d for d in range(weight.ndim) if d != axis)).astype(bool)
        new = np.where(empty & (bias != 0), smallest, np.maximum(scale, smallest)).astype(np.float32)
        if not (changed := int((new != scale).sum())):
            continue
        mended += changed
        shape = [-1 if d == axis else 1 for d in range(weight.ndim)]
        limit = np.abs(numpy_helper.to_array(initializers[names[1][0]])).max()
        _set(initializers[names[1][0]], np.clip(np.rint(weight / new.reshape(shape)), -limit, limit).astype(np.int8))
        _set(initializers[names[1][1]], new)
        _set(initializers[names[2][0]], np.rint(bias / (input_scale * new.astype(np.float64))).astype(np.int32))
        _set(initializers[names[2][1]], (input_scale * new).astype(np.float32))
    return mended


def _transposed(gemm: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in gemm.attribute)


def _set(tensor: onnx.TensorProto, values: NDArray[np.generic]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
