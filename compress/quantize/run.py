"""Run an ONNX network over batches and see the tensors inside."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from zoo.onnx_session import open_session

Batches = Iterable[NDArray[np.float32]]


def tensors_of(
    network: onnx.ModelProto, names: Collection[str], batches: Batches
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """For each (B, C, H, W) batch the float tensors of these names, in onnxruntime; the input may be one of them."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(network)
    given = network.graph.input[0].name
    inner = [name for name in names if name != given]
    if not inner:
        yield from ({given: batch} for batch in batches)
        return
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = open_session(watched.SerializeToString(), options)
    for batch in batches:
        yield dict(zip(inner, session.run(inner, {given: batch}), strict=True)) | {given: batch}
