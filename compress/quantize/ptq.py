"""Static post-training quantization of an ONNX network: QDQ, activations unsigned, weights signed per channel."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.deploy.preprocessing import INPUT
from compress.quantize.cpu import needs_reduced_range
from zoo.errors import SlimzooError

CALIBRATION_BATCH = 16
PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Quantized:
    """An int8 network and what became of it.

    Attributes:
        reduce_range: 7-bit weights, because this processor saturates on 8.
        int8_layers, layers: how many of the convolutions and matrix products run in int8.
        nodes: operators of the graph and their counts.
        density: share of the weights of these layers that are not zero; zeros of the float network stay zeros.
    """

    network: onnx.ModelProto
    reduce_range: bool
    int8_layers: int
    layers: int
    nodes: dict[str, int]
    density: float


def quantize_static(
    network: onnx.ModelProto, calibration: NDArray[np.float32], *, reduce_range: bool | None = None
) -> Quantized:
    """Quantize convolutions and matrix products with activation ranges seen on `calibration` (N, C, H, W).

    Args:
        network: float32, BatchNorm folded, with the input "input".
        reduce_range: 7-bit weights; by default what this processor needs.

    Raises:
        SlimzooError: nothing was quantized, the file did not become smaller, or zeros were lost.
    """
    if reduce_range is None:
        reduce_range = needs_reduced_range()
    if not np.isfinite(calibration).all():
        raise SlimzooError("the calibration images hold values that are not finite; check the Preprocess")
    before = network.ByteSize()
    quantized = _quantize(network, calibration, reduce_range)
    layers, int8_layers = _layers(quantized)
    nodes = Counter(node.op_type for node in quantized.graph.node)
    if int8_layers == 0 or quantized.ByteSize() >= before:
        raise SlimzooError(
            f"asked for int8, got {int8_layers} of {layers} layers in int8 and {quantized.ByteSize():,} bytes "
            f"from {before:,}"
        )
    (zeros, weights), (zeros_before, _) = zero_weights(quantized), zero_weights(network)
    if zeros < zeros_before:
        raise SlimzooError(f"quantization lost zeros: {zeros:,} of {zeros_before:,} are left")
    return Quantized(quantized, reduce_range, int8_layers, layers, dict(nodes), 1 - zeros / max(1, weights))


def zero_weights(network: onnx.ModelProto) -> tuple[int, int]:
    """How many weights of convolutions and matrix products are zero, and how many there are; of floats or int8."""
    stored = {tensor.name: tensor for tensor in network.graph.initializer}
    makers = {output: node for node in network.graph.node for output in node.output}
    zeros = weights = 0
    for node in network.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        name, zero, axis = node.input[1], np.zeros(()), 1
        if name in makers and makers[name].op_type == "DequantizeLinear":
            maker = makers[name]
            name, _, *point = maker.input
            axis = next((attribute.i for attribute in maker.attribute if attribute.name == "axis"), 1)
            zero = numpy_helper.to_array(stored[point[0]]) if point and point[0] in stored else zero
        if name in stored:
            values = numpy_helper.to_array(stored[name])
            if zero.size > 1:  # one zero point an output channel
                zero = zero.reshape([-1 if d == axis % values.ndim else 1 for d in range(values.ndim)])
            zeros += int((values == zero).sum())
            weights += values.size
    return zeros, weights


def _quantize(network: onnx.ModelProto, calibration: NDArray[np.float32], reduce_range: bool) -> onnx.ModelProto:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            starts = range(0, len(calibration), CALIBRATION_BATCH)
            self.batches = iter([{INPUT: calibration[s : s + CALIBRATION_BATCH]} for s in starts])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(network, source)
        quantization.quantize_static(
            source, target, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            reduce_range=reduce_range, activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8, calibrate_method=quantization.CalibrationMethod.MinMax,
        )  # fmt: skip
        return onnx.load(target)


def _layers(model: onnx.ModelProto) -> tuple[int, int]:
    """How many convolutions and matrix products there are, and how many read dequantized weights and activations."""
    producers = {output: node.op_type for node in model.graph.node for output in node.output}
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    int8 = [n for n in products if all(producers.get(name) == "DequantizeLinear" for name in n.input[:2])]
    return len(products), len(int8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantizer recommends, through the root logger, a pre-processing step that the export has done."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
