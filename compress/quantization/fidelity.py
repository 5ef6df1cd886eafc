"""How near a quantized network's answers are to the float network's: without labels, on any images."""

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


def divergence(expected: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    """Mean KL divergence of the answers `got` from the `expected`, in nats an image.

    Args:
        expected, got: (N, K) logits of the same images.
    """
    first, second = _log_softmax(expected), _log_softmax(got)
    return max(0.0, float((np.exp(first) * (first - second)).sum(axis=1).mean()))  # rounding goes below


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
