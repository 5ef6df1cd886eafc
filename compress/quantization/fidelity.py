"""The answers of a network as an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.graph.run import tensors_of


def logits_of(network: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
    """(N, K) of a network with one input and one output, in onnxruntime."""
    name = network.graph.output[0].name
    return np.concatenate([found[name] for found in tensors_of(network, [name], batches)]).astype(np.float64)
