"""Static post-training quantization of an ONNX network: QDQ, by the scheme that this processor gets right."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.graph.layers import PRODUCTS, RECURRENT, ROUNDED, integer_layers, macs_by_layer, weights_by_layer
from compress.graph.nodes import set_nodes_
from compress.quantization.calibrate import Histogram, watch
from compress.quantization.cpu import Scheme, best_scheme
from compress.quantization.rounding import Roundings, round_to_nearest, with_weights, without
from compress.quantization.settings import RANGES
from zoo.errors import SlimzooError, UsageError, did_you_mean

DYNAMIC_LAYER = "LSTM"  # the recurrent one that has int8 at run time, see dynamic.py
NAMED = 4  # layers of a list that would be too long
HALF_BYTE = 4  # bits
HALF_BYTE_OPSET = 21  # the first that knows them
FLOAT_RESULTS = ("Gemm", "MatMul")  # a Conv would run on floats
NORMALIZED = ("LayerNormalization", "Softmax")  # a network with these is a transformer, or built like one


@dataclass(frozen=True)
class Quantized:
    """An int8 network and what became of it.

    Attributes:
        scheme: types of activations and weights, and how many bits of the weights are used.
        ranges: how the activations' ranges were found, a name in `RANGES`, or a function.
        kept: names of the layers that were kept in float.
        int8_layers, layers: how many of the convolutions and matrix products run in int8.
        int8_macs: share of the multiply-accumulates that do.
        nodes: operators of the graph and their counts.
        density: share of the weights of these layers that are not zero; zeros of the float network stay zeros.
    """

    network: onnx.ModelProto
    scheme: Scheme
    ranges: Any
    kept: tuple[str, ...]
    int8_layers: int
    layers: int
    int8_macs: float
    nodes: dict[str, int]
    density: float


def quantize_static(
    network: onnx.ModelProto,
    images: Iterable[NDArray[np.float32]] | None = None,
    *,
    histograms: Mapping[str, Histogram] | None = None,
    ranges: Any = "minmax",
    keep: Collection[str] = (),
    scheme: Scheme | None = None,
    roundings: Roundings | None = None,
) -> Quantized:
    """Quantize a network, with the ranges that its activations took on calibration images.

    Weights are quantized by output channel; of 4 bits and fewer two are stored in a byte, and become bytes when
    onnxruntime opens the file. Matrix products sum integers, and their results stay in float: rounded, they cost a
    ViT-Tiny fitted to digits three times the divergence (5e-4 nats an image against 1.6e-4), most of it in attention's
    scores, and a ResNet-18 at 64 px a tenth of its time in OpenVINO. In a network with LayerNormalization or Softmax
    only convolutions and matrix products are quantized: with all operators that ViT's divergence was 1e-2.

    Args:
        network: float32, BatchNorm folded, with one input.
        images: (B, C, H, W) batches, run through the network once.
        histograms: of its activations, instead: what `watch` found.
        ranges: a name in `RANGES`, or a function.
        keep: names of nodes that stay in float.
        scheme: by default the fastest that this processor gets right.
        roundings: the weights as they are stored; by default the nearest.

    Raises:
        UsageError: an unknown method or layer.
        SlimzooError: images that are not finite; nothing runs in int8 here, the file did not become smaller, or zeros
            were lost.
    """
    RANGES.checked(ranges)
    check_layers(network, keep)
    layers = macs_by_layer(network)
    scheme = scheme or best_scheme()
    if histograms is None:
        histograms = watch(network, rounded_activations(network), [] if images is None else images)
    before = network.ByteSize()
    if roundings is None:
        roundings = round_to_nearest(network, scheme.bits)
    quantized = _quantize(network, histograms, ranges, keep, scheme, roundings)
    int8 = integer_layers(quantized) & layers.keys()
    if undone := int8 & set(keep):
        raise SlimzooError(f"{min(undone)} was to stay in float, and onnxruntime runs it on integers")
    if not int8 or quantized.ByteSize() >= before:
        raise SlimzooError(
            f"asked for int8, got {len(int8)} of {len(layers)} layers in int8 and {quantized.ByteSize():,} bytes "
            f"from {before:,}; {without_int8(network) or 'keep the float model'}"
        )
    (zeros, weights), (zeros_before, _) = zero_weights(quantized), zero_weights(network)
    if zeros < zeros_before:
        raise SlimzooError(f"quantization lost zeros: {zeros:,} of {zeros_before:,} are left")
    share = sum(layers[name] for name in int8) / sum(layers.values())
    nodes = dict(Counter(node.op_type for node in quantized.graph.node))
    density = 1 - zeros / max(1, weights)
    return Quantized(quantized, scheme, ranges, tuple(sorted(keep)), len(int8), len(layers), share, nodes, density)


def without_int8(network: onnx.ModelProto) -> str:
    """Which layers the network has that onnxruntime computes in float whatever they are stored in, and what to do."""
    kinds = {node.op_type for node in network.graph.node}
    transposed = kinds & set(ROUNDED) - set(PRODUCTS)
    if recurrent := kinds & set(RECURRENT):
        instead = "has --to int8-dynamic" if recurrent == {DYNAMIC_LAYER} else "takes --to fp16 or bf16"
        return f"onnxruntime has no static int8 for {' and '.join(sorted(recurrent))}, which {instead}"
    return f"onnxruntime computes {min(transposed)} in float; its weights alone are int8" if transposed else ""


def check_layers(network: onnx.ModelProto, names: Collection[str]) -> None:
    """Raises:
    UsageError: the network has no node of such a name.
    """
    if unknown := set(names) - {node.name for node in network.graph.node}:
        layers = [node.name for node in network.graph.node if node.op_type in PRODUCTS]
        more = len(layers) - NAMED
        some = ", ".join(layers[:NAMED]) + (f" and {more} more" if more > 0 else "")
        near = did_you_mean(min(unknown), layers, f"its layers are {some}")
        raise UsageError(f"the network has no layer {min(unknown)!r}; {near}")


def activations(network: onnx.ModelProto) -> list[str]:
    """Names of the float tensors that flow through a network, its input first."""
    graph = onnx.shape_inference.infer_shapes(network).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    flowing = [*(value.name for value in graph.input), *(name for node in graph.node for name in node.output)]
    return [name for name in flowing if kinds.get(name) == TensorProto.FLOAT]


def rounded_activations(network: onnx.ModelProto) -> list[str]:
    """Those that enter or leave an operator that is quantized; attention's mask, with its -inf, is not among them."""
    kinds = _operators(network)
    touched = {name for node in network.graph.node if node.op_type in kinds for name in (*node.input, *node.output)}
    return [name for name in activations(network) if name in touched]


def zero_weights(network: onnx.ModelProto) -> tuple[int, int]:
    """How many weights of convolutions and matrix products are zero, and how many there are; of floats or int8."""
    weights = weights_by_layer(network).values()
    return sum(int((weight == 0).sum()) for weight in weights), sum(weight.size for weight in weights)


def _quantize(
    network: onnx.ModelProto,
    histograms: Mapping[str, Histogram],
    ranges: Any,
    keep: Collection[str],
    scheme: Scheme,
    roundings: Roundings,
) -> onnx.ModelProto:
    from onnxruntime import quantization

    bounds = {name: RANGES.value(ranges)(histogram) for name, histogram in histograms.items()}
    data = {
        name: quantization.TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in bounds.items()
    }
    roundings = without(roundings, network, keep)
    zero = 0 if scheme.weights == "int8" else 1 << 7
    overrides = {
        name: [
            {"scale": scale, "zero_point": zero, **({} if r.grid.axis is None else {"axis": r.grid.axis})}
            for scale in r.grid.scale
        ]
        for name, r in roundings.items()
    }
    types = {"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}
    with tempfile.TemporaryDirectory() as folder, quiet():
        quantizer = quantization.QDQQuantizer(
            with_weights(network, {name: r.weight for name, r in roundings.items()}),
            per_channel=True,
            reduce_range=scheme.bits < 8,
            weight_qType=types[scheme.weights],
            activation_qType=types[scheme.activations],
            tensors_range=quantization.TensorsData(quantization.CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=list(keep),
            op_types_to_quantize=_operators(network),
            extra_options={
                "ActivationSymmetric": scheme.activations == "int8",
                "TensorQuantOverrides": overrides,
                "OpTypesToExcludeOutputQuantization": list(FLOAT_RESULTS),
            },
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(Path(folder, "int8.onnx")), False)
        quantized = onnx.load(Path(folder, "int8.onnx"))
    part_from_integers_(quantized, keep)
    if scheme.bits <= HALF_BYTE and scheme.weights == "int8":  # unsigned ones lie around 128
        _store_in_half_bytes_(quantized, roundings)
    return quantized


def part_from_integers_(quantized: onnx.ModelProto, keep: Collection[str]) -> None:
    """Put a node that does nothing between a layer that stays in float and the DequantizeLinear before it.

    Since 1.21 onnxruntime quantizes the weights of any Conv or Gemm that it finds between DequantizeLinear and
    QuantizeLinear when it loads a file (its WeightBiasQuantization), whatever was excluded from quantization. The
    largest of one tensor is a copy that it does not optimize away.
    """
    makers = {output: node.op_type for node in quantized.graph.node for output in node.output}
    nodes = []
    for node in quantized.graph.node:
        if node.name in keep and node.op_type in PRODUCTS and makers.get(node.input[0]) == "DequantizeLinear":
            apart = f"{node.name}/float"
            nodes.append(helper.make_node("Max", [node.input[0]], [apart], name=apart))
            node.input[0] = apart
        nodes.append(node)
    set_nodes_(quantized.graph, nodes)


def _store_in_half_bytes_(quantized: onnx.ModelProto, roundings: Roundings) -> None:
    """Weights of 4 bits as INT4, with a Cast to INT8 that onnxruntime does once, when it opens the file.

    A DequantizeLinear of INT4 itself runs on floats there, for convolutions: five times slower (1.31.1, 64 channels).
    """
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    casts = []
    for name in roundings:
        whole = stored.get(f"{name}_quantized")
        if whole is None:
            continue
        values, half = numpy_helper.to_array(whole), f"{name}_int4"
        casts.append(helper.make_node("Cast", [half], [whole.name], name=half, to=TensorProto.INT8))
        whole.CopyFrom(helper.make_tensor(half, TensorProto.INT4, values.shape, _packed(values), raw=True))
    set_nodes_(quantized.graph, [*casts, *quantized.graph.node])
    for opset in quantized.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, HALF_BYTE_OPSET)


def _packed(values: NDArray[np.int8]) -> bytes:
    """Two in a byte, the first in its lower half."""
    halves = values.ravel().view(np.uint8) & 0xF
    even = np.pad(halves, (0, halves.size % 2))
    return bytes((even[::2] | even[1::2] << 4).tobytes())


def _operators(network: onnx.ModelProto) -> list[str]:
    """Which kinds of operator are quantized: all that can be, but in a transformer only products."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    if any(node.op_type in NORMALIZED for node in network.graph.node):
        return list(PRODUCTS)
    return sorted({*QLinearOpsRegistry, *QDQRegistry})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """onnxruntime's quantizer recommends, through the root logger, a pre-processing step that the export has done;
    torch and torchao announce their own coming changes."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
