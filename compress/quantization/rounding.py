"""Rounded weights: a grid for each output channel, and where on it each weight lies."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.graph.layers import ROUNDED

EXTREMES = 7  # bits, from which on a grid reaches to the largest weight; a coarser one is better off clipping it
SHARES = np.linspace(1, 0.3, 71)  # of the largest weight, that a coarser grid may reach to


@dataclass(frozen=True)
class Grid:
    """Multiples of a scale, as many on either side of 0.

    Attributes:
        scale: (O,) of each output channel, above 0; (1,) of all.
        axis: of the output channels in the weight; None where all have one scale.
        levels: the greatest multiple.
    """

    scale: NDArray[np.float32]
    axis: int | None
    levels: int

    def steps(self, weight: NDArray[np.float32]) -> NDArray[np.float64]:
        """The weight in multiples of the scale, not rounded, clipped to the grid."""
        return np.clip(weight.astype(np.float64) / self._along(weight.ndim), -self.levels, self.levels)

    def at(self, steps: NDArray[np.float64]) -> NDArray[np.float32]:
        return np.asarray(steps * self._along(steps.ndim), np.float32)

    def _along(self, ndim: int) -> NDArray[np.float64]:
        return self.scale.astype(np.float64).reshape([-1 if d == self.axis else 1 for d in range(ndim)])


@dataclass(frozen=True)
class Rounded:
    """A weight on its grid."""

    weight: NDArray[np.float32]
    grid: Grid


Roundings = Mapping[str, Rounded]  # by the name of the stored tensor


def round_to_nearest(network: onnx.ModelProto, bits: int, *, by_channel: bool = True) -> dict[str, Rounded]:
    """The weights of convolutions, transposed ones too, and matrix products, each at the nearest point of its grid.

    Args:
        bits: 2 to 8: 2**(bits - 1) - 1 multiples on either side of 0.
        by_channel: a scale for each output channel; otherwise one for the tensor.
    """
    return {
        name: Rounded(grid.at(np.rint(grid.steps(weight))), grid)
        for name, weight, axis in products(network)
        for grid in [fit_grid(weight, axis, bits, by_channel=by_channel)]
    }


def without(roundings: Roundings, network: onnx.ModelProto, keep: Collection[str]) -> dict[str, Rounded]:
    """Those that no layer named in `keep` multiplies by."""
    floats = {node.input[1] for node in network.graph.node if node.name in keep and node.op_type in ROUNDED}
    return {name: rounded for name, rounded in roundings.items() if name not in floats}


def products(network: onnx.ModelProto) -> Iterator[tuple[str, NDArray[np.float32], int | None]]:
    """Name, values and axis of the output channels of each stored weight that is multiplied by; each once.

    The axis is None where several layers read the weight along different ones.
    """
    stored = {tensor.name: tensor for tensor in network.graph.initializer}
    axes: dict[str, set[int | None]] = {}
    for node in network.graph.node:
        if node.op_type in ROUNDED and node.input[1] in stored:
            axes.setdefault(node.input[1], set()).add(output_axis(node, len(stored[node.input[1]].dims)))
    for name, found in axes.items():
        yield name, numpy_helper.to_array(stored[name]), found.pop() if len(found) == 1 else None


def output_axis(node: onnx.NodeProto, ndim: int) -> int | None:
    """Name the axis of the output channels in a layer's weight; None where onnxruntime takes one scale alone (1.31).

    That is where MatMul multiplies by no matrix, and where a ConvTranspose has groups: no axis of its weight
    (I, O / groups, ...) is that of the outputs.
    """
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Conv" or attributes.get("transB"):
        return 0
    return 1 if ndim == 2 else None


def fit_grid(weight: NDArray[np.float32], axis: int | None, bits: int, *, by_channel: bool = True) -> Grid:
    """Up to the largest weight, or, with few bits, where the squared error of rounding is least."""
    levels = (1 << (bits - 1)) - 1
    outputs = 1 if axis is None else weight.shape[axis]
    ordered = weight if axis is None else np.moveaxis(weight, axis, 0)
    channels = ordered.reshape(outputs if by_channel else 1, -1).astype(np.float64)
    largest = np.abs(channels).max(axis=1)
    largest[largest == 0] = levels  # nothing to round
    reach = largest
    if bits < EXTREMES:
        errors = []
        for share in SHARES:
            scale = (share * largest / levels)[:, None]
            rounded = np.clip(np.rint(channels / scale), -levels, levels) * scale
            errors.append(np.square(channels - rounded).sum(axis=1))
        reach = largest * SHARES[np.argmin(errors, axis=0)]
    scale = np.broadcast_to(reach / levels, (outputs,))
    return Grid(scale.astype(np.float32), axis, levels)


def with_weights(network: onnx.ModelProto, weights: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """A copy with other values in stored tensors."""
    copied = onnx.ModelProto()
    copied.CopyFrom(network)
    for tensor in copied.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return copied
