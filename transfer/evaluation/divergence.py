"""How far a model's answers are from another's: without labels, on any images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def divergence(expected: NDArray[np.floating], got: NDArray[np.floating]) -> float:
    """Mean KL divergence of the answers `got` from the `expected`, in nats an image.

    Args:
        expected, got: (N, K) logits of the same images.
    """
    return mean_nats(divergences(expected, got))


def divergences(expected: NDArray[np.floating], got: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,) that of each image."""
    first, second = _log_softmax(expected), _log_softmax(got)
    found: NDArray[np.float64] = (np.exp(first) * (first - second)).sum(axis=1)
    return found


def mean_nats(found: NDArray[np.float64]) -> float:
    """Their mean, of (N,) divergences."""
    return max(0.0, float(found.mean()))  # rounding goes below


def clearly_less(some: NDArray[np.float64], others: NDArray[np.float64], errors: float = 1.0) -> bool:
    """Whether the first's mean is less by more than so many standard errors of the difference, image by image.

    Breiman et al. 1984 (Classification and regression trees), sec. 3.4.3: of two that a few images cannot tell apart,
    the simpler one.
    """
    apart = others - some
    error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else 0.0
    return bool(apart.mean() > errors * error)


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
