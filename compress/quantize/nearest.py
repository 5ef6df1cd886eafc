"""What brings an int8 network's answers nearest to the float network's, tried in turn and kept where it pays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.quantize.bias import correct_biases, input_means
from compress.quantize.calibrate import METHODS, Histogram, watch
from compress.quantize.cpu import Scheme
from compress.quantize.equalize import equalize
from compress.quantize.fidelity import divergence, logits_of
from compress.quantize.ptq import Quantized, activations, quantize_static

PAYS = 0.05  # share of the divergence that a change has to take away: below, it is as likely chance
EQUALIZED, CORRECTED = "equalized", "biases corrected"

Batches = Iterable[NDArray[np.float32]]


@dataclass(frozen=True)
class Nearest:
    """The int8 network that was nearest, and how it was found.

    Attributes:
        tried: ranges or change -> divergence with it, in nats an image, in the order in which they were tried.
        taken: the changes that paid.
        exact: the float network, with these changes.
        histograms: of its activations.
    """

    quantized: Quantized
    tried: Mapping[str, float]
    taken: tuple[str, ...]
    exact: onnx.ModelProto
    histograms: Mapping[str, Histogram]


def nearest(
    network: onnx.ModelProto,
    calibration: Batches,
    unseen: Batches,
    *,
    ranges: Sequence[str] = tuple(METHODS),
    keep: Collection[str] = (),
    scheme: Scheme | None = None,
) -> Nearest:
    """Quantize by each of `ranges`; then equalize, and correct biases, where that brings the answers nearer.

    Args:
        calibration: (B, C, H, W) batches that ranges and means are taken from; gone through up to three times.
        unseen: others, on which the answers are compared; gone through once for each trial.
        ranges: names in `METHODS`.
        keep: names of layers that stay in float.

    Raises:
        see `quantize_static`.
    """
    expected = logits_of(network, unseen)
    tried: dict[str, float] = {}

    def attempt(name: str, exact: onnx.ModelProto, histograms: Mapping[str, Histogram], by: str) -> Quantized:
        quantized = quantize_static(exact, histograms=histograms, ranges=by, keep=keep, scheme=scheme)
        tried[name] = divergence(expected, logits_of(quantized.network, unseen))
        return quantized

    histograms = watch(network, activations(network), calibration)
    candidates = {name: attempt(name, network, histograms, name) for name in ranges}
    by = min(candidates, key=lambda name: tried[name])
    best, least, taken, exact = candidates[by], tried[by], [], network
    equal, pairs = equalize(exact)
    if pairs:
        seen = watch(equal, activations(equal), calibration)
        found = attempt(EQUALIZED, equal, seen, by)
        if tried[EQUALIZED] < (1 - PAYS) * least:
            best, least, exact, histograms = found, tried[EQUALIZED], equal, seen
            taken.append(EQUALIZED)
    corrected = correct_biases(exact, best.network, input_means(exact, calibration))
    found = attempt(CORRECTED, corrected, histograms, by)
    if tried[CORRECTED] < (1 - PAYS) * least:
        best, exact = found, corrected
        taken.append(CORRECTED)
    return Nearest(best, tried, tuple(taken), exact, histograms)
