"""Dynamic int8: weights stored in 8 bits, the ranges of what they multiply found anew for each batch.

It needs no calibration, and ranges follow where activations differ from image to image; each product pays for it with a
pass over its input. onnxruntime has it for matrix products and LSTMs, not for GRUs (1.31).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.graph.layers import integer_inputs, with_stored_weights
from compress.quantization.converted import Converted, converted, stored_weights
from compress.quantization.cpu import Scheme, decide, is_exact
from compress.quantization.ptq import quiet

DYNAMIC = "int8-dynamic"
LAYERS = ["Gemm", "LSTM", "MatMul"]
SUFFIX = "_quantized"  # that onnxruntime's quantizer appends to a weight's name


def quantize_dynamic(
    network: onnx.ModelProto, images: Iterable[NDArray[np.float32]] = (), *, scheme: Scheme | None = None
) -> Converted:
    """Store the weights of matrix products and LSTMs as int8, a scale for each output channel.

    Args:
        network: float32.
        images: of no use here, where no range is calibrated.
        scheme: of unsigned activations; by default the fastest of those that this processor gets right.

    Raises:
        SlimzooError: hardly anything runs in int8 and the file is hardly smaller: a network of convolutions.
    """
    from onnxruntime import quantization

    scheme = scheme or decide(False, is_exact)  # DynamicQuantizeLinear gives unsigned bytes, on ARM too
    network = with_stored_weights(network)
    bare = onnx.ModelProto()
    bare.CopyFrom(network)
    del bare.graph.value_info[:]  # onnxruntime transposes the weights of a Gemm, and would find their old shapes
    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder, "dynamic.onnx")
        quantization.quantize_dynamic(
            bare,
            file,
            op_types_to_quantize=LAYERS,
            per_channel=True,
            reduce_range=scheme.bits < 8,
            weight_type=quantization.QuantType.QInt8 if scheme.weights == "int8" else quantization.QuantType.QUInt8,
        )
        made = onnx.load(file)
    integers = integer_inputs(made)
    done = [layer for layer, names in stored_weights(network).items() if integers.issuperset(n + SUFFIX for n in names)]
    return converted(
        DYNAMIC,
        network,
        made,
        done,
        arithmetic=f"run in int8, ranges found at run time; {scheme}",
        suffix=SUFFIX,
        instead="only matrix products and LSTMs have it: try --to int8 for convolutions, fp16 or bf16 for anything",
    )
