"""Which int8 arithmetic this processor gets right, found by trying it.

Without VNNI or AMX, x86 kernels add two products of unsigned and signed bytes in 16 bits, and saturate: weights of the
full range lose up to half of a sum. The cure is 7-bit weights (onnxruntime's `reduce_range`).
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = 64


@functools.cache
def needs_reduced_range() -> bool:
    """Whether 8-bit weights give wrong sums here: a convolution of 64 inputs at full scale, against exact integers."""
    return convolution_at_full_scale(127) != exact_at_full_scale(127)


def exact_at_full_scale(weight: int) -> int:
    """What `convolution_at_full_scale` should return: the sum 64 x 255 x weight, scaled to the top of a byte."""
    total = INPUTS * 255 * weight
    return min(255, round(total / (INPUTS * weight)))


def convolution_at_full_scale(weight: int) -> int:
    """One output byte of onnxruntime's QLinearConv over 64 unsigned inputs of 255 and signed weights of `weight`."""
    import onnxruntime

    scalars = {"x_scale": 1.0, "w_scale": 1.0, "y_scale": float(INPUTS * weight)}
    initializers = [numpy_helper.from_array(np.array(v, dtype=np.float32), k) for k, v in scalars.items()]
    initializers += [
        numpy_helper.from_array(np.array(0, dtype=np.uint8), "x_zero"),
        numpy_helper.from_array(np.array(0, dtype=np.int8), "w_zero"),
        numpy_helper.from_array(np.array(0, dtype=np.uint8), "y_zero"),
        numpy_helper.from_array(np.full((INPUTS, INPUTS, 1, 1), weight, dtype=np.int8), "w"),
    ]
    names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    shape = [1, INPUTS, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", names, ["y"])],
        "saturation",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output = session.run(None, {"x": np.full(shape, 255, dtype=np.uint8)})[0]
    return int(output.min())
