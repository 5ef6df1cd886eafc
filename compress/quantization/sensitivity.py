"""Which layer is to blame: how far each layer's rounding takes the answers, and what it does to its own numbers.

A layer is judged by leaving it out: all others are quantized, it stays in float, and the divergence that goes with it
is its own. That counts what rounding errors do to each other, which quantizing a layer alone would not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.graph.layers import ROUNDED, macs_by_layer, weights_by_layer
from compress.graph.nodes import set_nodes_
from compress.graph.run import tensors_of
from compress.quantization.calibrate import Histogram
from compress.quantization.cpu import Scheme
from compress.quantization.fidelity import logits_of
from compress.quantization.ptq import part_from_integers_, quantize_static
from compress.quantization.rounding import Roundings
from compress.quantization.times import layer_ms
from transfer.evaluation.divergence import divergence
from zoo.progress import Progress


@dataclass(frozen=True)
class Blame:
    """What one layer's rounding costs.

    Attributes:
        layer: the node's name.
        macs: for one image.
        weight_sqnr_db: power of the weights over the power of their rounding, in dB; None without a stored weight.
        output_sqnr_db: power of its outputs over the power of what all rounding up to there does to them, in dB.
        saved_ms: by which int8 is faster for one image, by the runtime's profile; below 0 where it is slower.
        divergence: of the network's answers with this layer in float, in nats an image.
        share: of the divergence with all layers in int8, how much goes with it; below 0 where its rounding helped.
    """

    layer: str
    macs: int
    weight_sqnr_db: float | None
    output_sqnr_db: float
    saved_ms: float | None
    divergence: float
    share: float

    def record(self) -> dict[str, Any]:
        """Say it for the lineage: JSON knows no infinity."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def blame(
    network: onnx.ModelProto,
    histograms: Mapping[str, Histogram],
    unseen: Iterable[NDArray[np.float32]],
    *,
    ranges: Any = "minmax",
    keep: Collection[str] = (),
    scheme: Scheme | None = None,
    roundings: Roundings | None = None,
    progress: Progress | None = None,
) -> list[Blame]:
    """Every layer's, the worst first.

    Args:
        network: float32; equalized and corrected, where that is how it was quantized.
        histograms: of its activations.
        unseen: (B, C, H, W) batches that did not calibrate; gone through once a layer.
        ranges: a name in `RANGES`, or a function.
        keep: names of layers that stay in float whatever comes; they are not judged.
        roundings: see `quantize_static`.
    """
    macs = macs_by_layer(network)
    expected = logits_of(network, unseen)
    whole = quantize_static(
        network, histograms=histograms, ranges=ranges, keep=keep, scheme=scheme, roundings=roundings
    ).network
    all_in_int8 = divergence(expected, logits_of(whole, unseen))
    exact, rounded = weights_by_layer(network), weights_by_layer(whole)
    outputs, (ms_before, ms_after) = output_sqnrs(network, whole, unseen), layer_ms(network, whole)
    judged = [layer for layer in macs if layer in outputs and layer not in keep]
    found = []
    for done, layer in enumerate(judged):
        if progress is not None:
            progress("sensitivity", done, len(judged), layer)
        left = divergence(expected, logits_of(with_float(whole, network, layer), unseen))
        sqnr = sqnr_db(exact[layer], rounded[layer]) if layer in exact and layer in rounded else None
        timed = layer in ms_before and layer in ms_after
        found.append(
            Blame(
                layer=layer,
                macs=macs[layer],
                weight_sqnr_db=sqnr,
                output_sqnr_db=outputs[layer],
                saved_ms=ms_before[layer] - ms_after[layer] if timed else None,
                divergence=left,
                share=1 - left / all_in_int8 if all_in_int8 else 0.0,
            )
        )
    return sorted(found, key=lambda each: each.divergence)


def with_float(quantized: onnx.ModelProto, network: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """The quantized network with one layer as the float network has it, as if that had been kept.

    What it shares with others stays rounded: not the network's input where the layer alone reads it, nor its output. A
    layer that is really kept also frees what lies between it and others in float, which matters little.
    """
    partly = onnx.ModelProto()
    partly.CopyFrom(quantized)
    makers = {output: node for node in partly.graph.node for output in node.output}
    readers = Counter(name for node in partly.graph.node for name in node.input)
    exact = next(node for node in network.graph.node if node.name == layer)
    node = next(node for node in partly.graph.node if node.name == layer)
    given = network.graph.input[0].name
    for place, name in enumerate(exact.input):
        stored = next((tensor for tensor in network.graph.initializer if tensor.name == name), None)
        if stored is not None:
            kept = partly.graph.initializer.add()
            kept.CopyFrom(stored)
            kept.name = f"{layer}/{place}/float"
            node.input[place] = kept.name
        elif name == given and readers[node.input[place]] == 1 and node.input[place] in makers:
            node.input[place] = given
    rounded = node.output[0]
    if exact.output[0] in {value.name for value in network.graph.output} and rounded != exact.output[0]:
        node.output[0] = exact.output[0]
        left = [each for each in partly.graph.node if each is node or not _rounds(each, rounded, exact.output[0])]
        set_nodes_(partly.graph, left)
    part_from_integers_(partly, [layer])
    return partly


def _rounds(node: onnx.NodeProto, tensor: str, result: str) -> bool:
    """Whether it is one of the two nodes that round this tensor to that one."""
    return bool(node.input[0] == tensor or node.output[0] == result)


def output_sqnrs(
    network: onnx.ModelProto, quantized: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]
) -> dict[str, float]:
    """Measure the SQNR of each layer's sums, before an activation function and before they are rounded, in dB."""
    ours, theirs = (
        {node.name: node.output[0] for node in each.graph.node if node.op_type in ROUNDED}
        for each in (network, quantized)
    )
    power, noise = dict.fromkeys(ours, 0.0), dict.fromkeys(ours, 0.0)
    runs = tensors_of(network, list(ours.values()), batches), tensors_of(quantized, list(theirs.values()), batches)
    for exact, rounded in zip(*runs, strict=True):
        for layer in ours:
            signal, noisy = exact[ours[layer]], rounded[theirs[layer]]
            power[layer] += float(np.square(signal, dtype=np.float64).sum())
            noise[layer] += float(np.square(signal - noisy, dtype=np.float64).sum())
    return {layer: _in_db(power[layer], noise[layer]) for layer in ours}


def sqnr_db(signal: NDArray[np.float32], rounded: NDArray[np.float32]) -> float:
    """Signal power over the power of the difference, in decibels; infinite where there is none."""
    return _in_db(
        float(np.square(signal, dtype=np.float64).sum()), float(np.square(signal - rounded, dtype=np.float64).sum())
    )


def _in_db(power: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power > 0 else -math.inf
