"""Bias correction: rounded weights shift the mean of a layer's outputs, and its bias can take that back.

Nagel et al. 2019 (DFQ, arXiv 1906.04721), section 4.2: E[(W - Wq) x] = (W - Wq) E[x] is added to the bias, with E[x] of
calibration images here, not of BatchNorm's statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.graph.layers import weights_by_layer
from compress.graph.run import tensors_of

CORRECTED = ("Conv", "Gemm")

Means = Mapping[str, NDArray[np.float64]]  # layer -> (inputs,) the mean of each channel that enters it


def input_means(network: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
    """Average each input channel of each layer that a bias can correct, over images and places.

    Args:
        batches: (B, C, H, W), run through the network once.
    """
    layers = {node.name: node.input[0] for node in network.graph.node if node.op_type in CORRECTED}
    sums: dict[str, NDArray[np.float64]] = {}
    images = 0
    for found in tensors_of(network, sorted(set(layers.values())), batches):
        images += len(found[network.graph.input[0].name])
        for name, values in found.items():
            places = tuple(range(2, values.ndim))
            sums[name] = sums.get(name, 0) + values.mean(axis=places, dtype=np.float64).sum(axis=0)
    return {layer: sums[name] / images for layer, name in layers.items()}


def correct_biases(network: onnx.ModelProto, quantized: onnx.ModelProto, means: Means) -> onnx.ModelProto:
    """The float network with biases that make up for the quantized one's weights: quantize it again by the same ranges.

    Zeros that a convolution's padding adds are not counted.

    Args:
        quantized: of the same layers, by name; those that are not rounded there are left alone.
        means: what `input_means` found.
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(network)
    exact, rounded = weights_by_layer(network), weights_by_layer(quantized)
    stored = {tensor.name: tensor for tensor in corrected.graph.initializer}
    for node in corrected.graph.node:
        computed = len(node.input) > 2 and node.input[2] not in stored  # and no bias that could be corrected
        if node.name not in means or node.name not in rounded or computed:
            continue
        error = exact[node.name].astype(np.float64) - rounded[node.name]
        shift = _shift(node, error, means[node.name])
        has_bias = len(node.input) > 2
        bias = numpy_helper.to_array(stored[node.input[2]]) if has_bias else np.float32(0)
        name = f"{node.name}/corrected_bias"
        corrected.graph.initializer.append(numpy_helper.from_array((bias + shift).astype(np.float32), name))
        if has_bias:
            node.input[2] = name
        else:
            node.input.append(name)
    used = {name for node in corrected.graph.node for name in node.input}
    left = [tensor for tensor in corrected.graph.initializer if tensor.name in used]
    del corrected.graph.initializer[:]
    corrected.graph.initializer.extend(left)
    return corrected


def _shift(node: onnx.NodeProto, error: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(O,) what the rounding takes from the mean of each output."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Gemm":
        alpha = attributes["alpha"].f if "alpha" in attributes else 1.0
        transposed = "transB" in attributes and attributes["transB"].i
        return alpha * (error if transposed else error.T) @ mean
    groups = attributes["group"].i if "group" in attributes else 1
    summed = error.reshape(groups, -1, error.shape[1], int(np.prod(error.shape[2:]))).sum(axis=3)  # (g, O / g, I / g)
    shift: NDArray[np.float64] = np.einsum("goi,gi->go", summed, mean.reshape(groups, -1)).reshape(-1)
    return shift
