"""Parity: do two forms of a model give the same answers on the same images?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.predictor import Predictor

BATCHES = (1, 3, 8)


def compare(
    reference: Predictor, other: Predictor, pixels: NDArray[np.uint8], raw: Sequence[NDArray[np.uint8]] = ()
) -> dict[str, Any]:
    """Run both over (N, H, W, C) pixels at the network's size, in batches of 1, 3 and 8 in turn.

    Args:
        raw: images of any size, which each form resizes by itself: the difference of the two resizers is told apart.

    Returns:
        n; max_abs, mean_abs: differences of logits; logits_std; sqnr_db: signal power over the power of the difference;
        top1_agreement; resized_max_abs over `raw`.
    """
    expected, got = [], []
    start, turn = 0, 0
    while start < len(pixels):
        size = BATCHES[turn % len(BATCHES)]
        expected.append(reference.logits(pixels[start : start + size]))
        got.append(other.logits(pixels[start : start + size]))
        start, turn = start + size, turn + 1
    a, b = np.concatenate(expected).astype(np.float64), np.concatenate(got).astype(np.float64)
    noise = float(np.square(a - b).mean())
    record: dict[str, Any] = {
        "n": len(a),
        "max_abs": float(np.abs(a - b).max()),
        "mean_abs": float(np.abs(a - b).mean()),
        "logits_std": float(a.std()),
        "sqnr_db": None if noise == 0 else round(10 * float(np.log10(np.square(a).mean() / noise)), 1),
        "top1_agreement": float((a.argmax(1) == b.argmax(1)).mean()),
    }
    if len(raw):
        record["resized_max_abs"] = max(
            float(np.abs(reference.logits(image[None]) - other.logits(image[None])).max()) for image in raw
        )
    return record
