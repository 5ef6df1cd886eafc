"""Which layer is to blame: how far each layer's rounding takes the answers, and what it does to its own numbers.

A layer is judged by leaving it out: all others are quantized, it stays in float, and the divergence that goes with it
is its own. That counts what rounding errors do to each other, which quantizing a layer alone would not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.quantize.calibrate import Histogram
from compress.quantize.cpu import Scheme
from compress.quantize.fidelity import divergence, logits_of
from compress.quantize.layers import macs_by_layer, weights_by_layer
from compress.quantize.ptq import quantize_static
from transfer.data.loader import Progress


@dataclass(frozen=True)
class Blame:
    """What one layer's rounding costs.

    Attributes:
        layer: the node's name.
        macs: for one image.
        weight_sqnr_db: power of the weights over the power of their rounding, in dB; None without a stored weight.
        divergence: of the network's answers with this layer in float, in nats an image.
        share: of the divergence with all layers in int8, how much goes with it; below 0 where its rounding helped.
    """

    layer: str
    macs: int
    weight_sqnr_db: float | None
    divergence: float
    share: float


def blame(
    network: onnx.ModelProto,
    histograms: Mapping[str, Histogram],
    unseen: Iterable[NDArray[np.float32]],
    *,
    ranges: str = "minmax",
    keep: Collection[str] = (),
    scheme: Scheme | None = None,
    progress: Progress | None = None,
) -> list[Blame]:
    """Every layer's, the worst first.

    Args:
        network: float32; equalized and corrected, where that is how it was quantized.
        histograms: of its activations.
        unseen: (B, C, H, W) batches that did not calibrate; gone through once a layer.
        ranges: a name in `METHODS`.
        keep: names of layers that stay in float whatever comes; they are not judged.
    """
    macs = macs_by_layer(network)
    expected = logits_of(network, unseen)
    whole = quantize_static(network, histograms=histograms, ranges=ranges, keep=keep, scheme=scheme).network
    all_in_int8 = divergence(expected, logits_of(whole, unseen))
    exact, rounded = weights_by_layer(network), weights_by_layer(whole)
    judged = [layer for layer in macs if layer not in keep]
    found = []
    for done, layer in enumerate(judged):
        if progress is not None:
            progress("sensitivity", done, len(judged), layer)
        without = quantize_static(
            network, histograms=histograms, ranges=ranges, keep=[*keep, layer], scheme=scheme
        ).network
        left = divergence(expected, logits_of(without, unseen))
        sqnr = sqnr_db(exact[layer], rounded[layer]) if layer in exact and layer in rounded else None
        found.append(Blame(layer, macs[layer], sqnr, left, 1 - left / all_in_int8 if all_in_int8 else 0.0))
    return sorted(found, key=lambda each: each.divergence)


def sqnr_db(signal: NDArray[np.float32], rounded: NDArray[np.float32]) -> float:
    """Signal power over the power of the difference, in decibels; infinite where there is none."""
    noise = float(np.square(signal.astype(np.float64) - rounded).mean())
    power = float(np.square(signal.astype(np.float64)).mean())
    return float("inf") if noise == 0 else 10 * float(np.log10(power / noise))
