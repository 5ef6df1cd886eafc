"""What formats without calibrated ranges have in common: what became of a network, and whether it was worth it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import numpy_helper

from compress.graph.layers import LAYERS, macs_by_layer, weight_names
from zoo.errors import SlimzooError

LEAST_MACS, LEAST_BYTES = 0.01, 0.1  # shares: where the one is not computed, nor the other saved, nothing was gained


@dataclass(frozen=True)
class Converted:
    """A network in another number format, and what became of it.

    Attributes:
        to: the format, by its name.
        arithmetic: what the layers compute in, to be read.
        kept: names of the nodes that were kept in float32, since their values are beyond the format's range.
        converted_layers, layers: how many of the convolutions, matrix products and recurrent layers are in it.
        macs: share of the multiply-accumulates that are theirs.
        nodes: operators of the graph and their counts.
        density: share of the weights of all layers that are not zero; zeros of the float network stay zeros.
    """

    network: onnx.ModelProto
    to: str
    arithmetic: str
    kept: tuple[str, ...]
    converted_layers: int
    layers: int
    macs: float
    nodes: dict[str, int]
    density: float

    def record(self) -> dict[str, Any]:
        """Say it for the lineage."""
        return {
            "arithmetic": self.arithmetic,
            "kept": list(self.kept),
            "macs": self.macs,
            "converted_layers": [self.converted_layers, self.layers],
        }

    def __str__(self) -> str:
        return f"{self.converted_layers} of {self.layers} layers, {self.macs:.1%} of the MACs, {self.arithmetic}"


def stored_weights(network: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the stored tensors that each layer multiplies by; of those without any, nothing."""
    stored = {tensor.name for tensor in network.graph.initializer}
    layers = {node.name: weight_names(node) for node in network.graph.node if node.op_type in LAYERS}
    return {layer: names for layer, names in layers.items() if names and stored.issuperset(names)}


def converted(
    to: str,
    network: onnx.ModelProto,
    made: onnx.ModelProto,
    done: Collection[str],
    *,
    arithmetic: str,
    suffix: str = "",
    kept: Collection[str] = (),
    instead: str,
) -> Converted:
    """Weigh what was made of a network.

    Args:
        done: names of the layers that are in the format now.
        suffix: of the names that their weights have now.
        instead: what to do where it was in vain.

    Raises:
        SlimzooError: the format was asked for and had no effect, or zeros were lost.
    """
    macs = macs_by_layer(network)
    share = sum(macs[name] for name in done) / max(1, sum(macs.values()))
    before, after = network.ByteSize(), made.ByteSize()
    if not done or after >= before or (share < LEAST_MACS and after > (1 - LEAST_BYTES) * before):
        raise SlimzooError(
            f"asked for {to}, got {len(done)} of {len(macs)} layers and {share:.1%} of the MACs in it, and {after:,} "
            f"bytes from {before:,}; {instead}"
        )
    now = {tensor.name: tensor for tensor in made.graph.initializer}
    weights = {name for names in stored_weights(network).values() for name in names}
    zeros = size = 0
    for tensor in network.graph.initializer:
        if tensor.name in weights:
            old, new = (
                int((numpy_helper.to_array(t) == 0).sum()) for t in (tensor, now.get(tensor.name + suffix, tensor))
            )
            if new < old:
                raise SlimzooError(f"{to} lost zeros of {tensor.name}: {new:,} of {old:,} are left")
            zeros, size = zeros + new, size + math.prod(tensor.dims)
    return Converted(
        made,
        to,
        arithmetic,
        tuple(sorted(kept)),
        len(done),
        len(macs),
        share,
        dict(Counter(node.op_type for node in made.graph.node)),
        1 - zeros / max(1, size),
    )
