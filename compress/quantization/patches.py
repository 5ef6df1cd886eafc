"""A convolution or a product as matrices: what the weight is multiplied by, at some places of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Window:
    """Where a convolution looks.

    Attributes:
        before: rows and columns of zeros above and on the left.
        after: below, on the right.
    """

    kernel: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    dilations: tuple[int, int]
    strides: tuple[int, int]

    @classmethod
    def of(cls, node: onnx.NodeProto, weight: Tensor) -> Window:
        given = {a.name: tuple(a.ints) for a in node.attribute}
        top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
        kernel = (weight.shape[2], weight.shape[3])
        dilations, strides = given.get("dilations", (1, 1)), given.get("strides", (1, 1))
        return cls(kernel, (top, left), (bottom, right), (dilations[0], dilations[1]), (strides[0], strides[1]))

    def outputs(self, sides: Sequence[int]) -> tuple[int, int]:
        """Height and width of what comes out, of what goes in."""
        rows, columns = (
            (side + before + after - dilation * (size - 1) - 1) // stride + 1
            for side, before, after, dilation, size, stride in zip(
                sides, self.before, self.after, self.dilations, self.kernel, self.strides, strict=True
            )
        )
        return rows, columns


def outputs_of(node: onnx.NodeProto, weight: Tensor, x: Tensor) -> int:
    """At how many places of an image the weight is multiplied."""
    return math.prod(Window.of(node, weight).outputs(x.shape[2:]) if node.op_type == "Conv" else x.shape[1:-1])


def columns_at(node: onnx.NodeProto, weight: Tensor, x: Tensor, places: Tensor) -> Tensor:
    """(B, G, K, S): of each image and group, what is multiplied at S of the places, (B, S).

    Only these patches are read: of a depthwise convolution over 112 x 112 places all of them are 1.4 GB for 32 images.
    """
    if node.op_type != "Conv":
        rows = x.reshape(len(x), -1, x.shape[-1])
        return torch.gather(rows, 1, places[..., None].expand(-1, -1, x.shape[-1])).transpose(1, 2)[:, None]
    window = Window.of(node, weight)
    (top, left), (bottom, right) = window.before, window.after
    padded = F.pad(x, (left, right, top, bottom)) if any((top, left, bottom, right)) else x
    down, across = (torch.arange(size) * step for size, step in zip(window.kernel, window.dilations, strict=True))
    offsets = (down[:, None] * padded.shape[3] + across[None]).flatten()  # of a patch, from its first corner
    _, width = window.outputs(x.shape[2:])
    corners = places // width * window.strides[0] * padded.shape[3] + places % width * window.strides[1]
    at = (corners[:, None] + offsets[None, :, None]).flatten(1)  # (B, kernel * S)
    found = torch.gather(padded.flatten(2), 2, at[:, None].expand(-1, x.shape[1], -1))
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return found.reshape(len(x), groups, -1, places.shape[1])


def as_matrix(node: onnx.NodeProto, weight: Tensor, groups: int) -> Tensor:
    """(G, O / G, K)."""
    if node.op_type == "Conv":
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return (weight if transposed else weight.T)[None]


def from_matrix(node: onnx.NodeProto, matrix: Tensor, shape: torch.Size) -> Tensor:
    """The weight that `as_matrix` made this of."""
    transposed = node.op_type != "Conv" and not any(a.name == "transB" and a.i for a in node.attribute)
    return matrix[0].T.contiguous() if transposed else matrix.reshape(shape)
