"""Cross-layer equalization: weights of channels are scaled so that one scale a tensor fits them all.

A ReLU passes a positive factor on: what a layer's output channel is divided by, the next layer's input channel can be
multiplied by, and the function stays. Nagel et al. 2019 (DFQ, arXiv 1906.04721), section 4.1: the factor at which the
channel has the same range in both layers' weights is best for both, and pairs are gone over until nothing moves.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu")
SWEEPS = 40
STILL = 1e-3  # relative change of a factor, below which a sweep is the last


@dataclass(frozen=True)
class Pair:
    """Two convolutions with nothing but a ReLU between them, by the names of their nodes."""

    first: str
    second: str


@dataclass
class _Layer:
    """A convolution's tensors as they are being scaled: (O, I / groups, kh, kw), (O,)."""

    node: onnx.NodeProto
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    @property
    def groups(self) -> int:
        return next((a.i for a in self.node.attribute if a.name == "group"), 1)

    def ranges_out(self) -> NDArray[np.float64]:
        """(O,) the largest weight of each output channel."""
        return np.asarray(np.abs(self.weight).max(axis=(1, 2, 3)), np.float64)

    def ranges_in(self) -> NDArray[np.float64]:
        """(I,) the largest weight that reads each input channel."""
        grouped = np.abs(self.weight).reshape(self.groups, -1, *self.weight.shape[1:])
        return np.asarray(grouped.max(axis=(1, 3, 4)).reshape(-1), np.float64)

    def scale_out(self, factors: NDArray[np.float64]) -> None:
        self.weight = (self.weight * factors[:, None, None, None]).astype(np.float32)
        if self.bias is not None:
            self.bias = (self.bias * factors).astype(np.float32)

    def scale_in(self, factors: NDArray[np.float64]) -> None:
        each = factors.reshape(self.groups, 1, self.weight.shape[1], 1, 1)
        grouped = self.weight.reshape(self.groups, -1, *self.weight.shape[1:])
        self.weight = (grouped * each).astype(np.float32).reshape(self.weight.shape)


def equalize(network: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Pair]]:
    """A network of the same function whose convolutions' channels have like ranges, and which pairs were scaled.

    Channels that one of the two layers does not use are left alone, and so are layers whose weights are shared, or
    whose output is read by anything else.
    """
    equal = onnx.ModelProto()
    equal.CopyFrom(network)
    layers, pairs = _layers(equal), pairs_of(equal)
    for _ in range(SWEEPS):
        moved = 0.0
        for pair in pairs:
            first, second = layers[pair.first], layers[pair.second]
            ours, theirs = first.ranges_out(), second.ranges_in()
            used = (ours > 0) & (theirs > 0)
            factors = np.ones_like(ours)
            factors[used] = np.sqrt(theirs[used] / ours[used])
            first.scale_out(factors)
            second.scale_in(1 / factors)
            moved = max(moved, float(np.abs(np.log(factors)).max(initial=0)))
        if moved < STILL:
            break
    stored = {tensor.name: tensor for tensor in equal.graph.initializer}
    for name in {name for pair in pairs for name in (pair.first, pair.second)}:
        layer = layers[name]
        for values, place in ((layer.weight, 1), (layer.bias, 2)):
            if values is not None:
                tensor = stored[layer.node.input[place]]
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return equal, pairs


def without_ceilings(network: onnx.ModelProto) -> onnx.ModelProto | None:
    """A network with a ReLU for each ReLU6, through which no factor passes; None where it has none.

    Another function, if only a little where few values reach the ceiling: Nagel et al. 2019, section 5.1.1.
    """
    stored = {tensor.name: tensor for tensor in network.graph.initializer}
    relaxed = onnx.ModelProto()
    relaxed.CopyFrom(network)
    found = False
    for node in relaxed.graph.node:
        if node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in stored:
            if float(numpy_helper.to_array(stored[node.input[1]])) == 0:
                node.op_type, found = "Relu", True
                del node.input[1:]
    return relaxed if found else None


def pairs_of(network: onnx.ModelProto) -> list[Pair]:
    """Convolutions that alone read another's output, directly or through a ReLU, in the order in which they run."""
    graph = network.graph
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    given_out = {value.name for value in graph.output}
    layers = _layers(network)
    found = []
    for name, layer in layers.items():
        output = layer.node.output[0]
        while output not in given_out and len(readers[output]) == 1:
            reader = readers[output][0]
            if reader.op_type in HOMOGENEOUS and reader.input[0] == output:
                output = reader.output[0]
                continue
            if reader.name in layers and reader.input[0] == output:
                found.append(Pair(name, reader.name))
            break
    return found


def _layers(network: onnx.ModelProto) -> dict[str, _Layer]:
    """Convolutions over images whose weights are stored and theirs alone, by the node's name."""
    stored = {tensor.name: tensor for tensor in network.graph.initializer}
    uses: dict[str, int] = defaultdict(int)
    for node in network.graph.node:
        for name in node.input:
            uses[name] += 1
    found = {}
    for node in network.graph.node:
        tensors = [name for name in node.input[1:] if name]
        if node.op_type != "Conv" or not all(name in stored and uses[name] == 1 for name in tensors):
            continue
        weight = numpy_helper.to_array(stored[tensors[0]])
        if weight.ndim == 4:
            bias = numpy_helper.to_array(stored[tensors[1]]) if len(tensors) > 1 else None
            found[node.name] = _Layer(node, weight, bias)
    return found
