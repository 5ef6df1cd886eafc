"""Preprocess as ONNX nodes: RGB bytes of any size in, what the network takes out.

Every node is named "preprocess/...", so that `network_of` can take the network out again.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zoo.preprocess import Preprocess

PIXELS = "pixels"  # uint8 (batch, height, width, 3)
INPUT = "input"  # float32 (batch, C, H, W)
PREFIX = "preprocess/"


def with_preprocessing(network: onnx.ModelProto, preprocess: Preprocess) -> onnx.ModelProto:
    """The network with preprocessing before it: its input becomes "pixels", uint8 (batch, height, width, 3).

    Resizing is ONNX's Resize with antialias (cubic coefficient -0.5, as Pillow), rounded to 8-bit levels and clipped as
    `Preprocess` says; on photographs it differs from Pillow by up to 2 levels, since Pillow rounds between its two passes.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network)
    builder = _Builder()
    builder.build(preprocess)
    nodes = [*builder.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(builder.initializers)
    pixels = helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["batch", "height", "width", 3])
    del model.graph.input[:]
    model.graph.input.append(pixels)
    return model


def network_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network without its preprocessing nodes, its input the float tensor again; a foreign file is left as it is."""
    network = onnx.ModelProto()
    network.CopyFrom(model)
    graph = network.graph
    kept = [node for node in graph.node if not node.name.startswith(PREFIX)]
    if len(kept) == len(graph.node):
        return network
    channels, height, width = _input_shape(model)
    initializers = [tensor for tensor in graph.initializer if not tensor.name.startswith(PREFIX)]
    for field, values in ((graph.node, kept), (graph.initializer, initializers)):
        del field[:]
        field.extend(values)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", channels, height, width]))
    return network


def _input_shape(model: onnx.ModelProto) -> tuple[int, int, int]:
    """(C, H, W), kept as an initializer that no node reads at run time."""
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == PREFIX + "shape")
    channels, height, width = numpy_helper.to_array(shape).tolist()
    return channels, height, width


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, values: NDArray[np.generic] | list[int] | list[float]) -> str:
        array = np.asarray(values)
        array = array.astype(np.int64) if array.dtype.kind == "i" else array.astype(np.float32)
        self.initializers.append(numpy_helper.from_array(array, PREFIX + name))
        return PREFIX + name

    def node(self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes: object) -> str:
        output = output or PREFIX + name
        self.nodes.append(helper.make_node(kind, inputs, [output], name=PREFIX + name, **attributes))
        return output

    def build(self, p: Preprocess) -> None:
        x = self.node("Cast", [PIXELS], "float", to=TensorProto.FLOAT)
        if p.channels == 1:
            luma = self.constant("luma", np.array([0.299, 0.587, 0.114]))  # ITU-R BT.601, as Pillow's "L"
            x = self.node("ReduceSum", [self.node("Mul", [x, luma], "weighted"), self.constant("last", [-1])], "grey")
            x = self._round(x, "grey_levels")
        x = self.node("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])
        x = self._fit(x, p)
        shape = (1, p.channels, 1, 1)
        mean = self.constant("mean", (np.array(p.mean) * 255).reshape(shape))
        std = self.constant("std", (np.array(p.std) * 255).reshape(shape))
        self.constant("shape", [p.channels, *p.size])
        x = self.node(
            "Reshape", [x, self.constant("sized_shape", [0, p.channels, *p.size])], "sized"
        )  # dynamic sizes end here
        self.node("Div", [self.node("Sub", [x, mean], "centred"), std], "normalized", INPUT)

    def _fit(self, x: str, p: Preprocess) -> str:
        axes = self.constant("axes", [2, 3])
        if p.mode == "squash":
            return self._resize(x, list(p.size), p, "stretch")
        if p.mode == "crop":
            assert p.resize_to is not None
            x = self._resize(x, [p.resize_to, p.resize_to], p, "not_smaller")
            half = self._half(x, p, larger="image")
            ends = self.node("Add", [half, self.constant("crop", list(p.size))], "crop_ends")
            return self.node("Slice", [x, half, ends, axes], "cropped")
        background = np.array(p.background, dtype=np.float32)
        if p.channels == 1:
            background = np.floor(background @ np.array([0.299, 0.587, 0.114]) + 0.5).reshape(1)
        behind = self.constant("background", background.reshape(1, p.channels, 1, 1))
        x = self._resize(x, list(p.size), p, "not_larger")
        before = self._half(x, p, larger="canvas")
        margin = self.node("Sub", [self.constant("canvas", list(p.size)), self._sides(x, "inner")], "margin")
        after = self.node("Sub", [margin, before], "margin_after")
        pads = self.node("Concat", [before, after], "pads", axis=0)
        x = self.node("Pad", [self.node("Sub", [x, behind], "on_zero"), pads, "", axes], "padded")
        return self.node("Add", [x, behind], "on_background")

    def _sides(self, x: str, name: str) -> str:
        return self.node("Shape", [x], name, start=2, end=4)

    def _half(self, x: str, p: Preprocess, *, larger: str) -> str:
        """Half of what the image has more than the crop, or less than the canvas, rounded down."""
        sides, size = self._sides(x, f"{larger}_sides"), self.constant(f"{larger}_size", list(p.size))
        pair = [sides, size] if larger == "image" else [size, sides]
        return self.node(
            "Div", [self.node("Sub", pair, f"{larger}_excess"), self.constant("two", [2, 2])], f"{larger}_half"
        )

    def _resize(self, x: str, sizes: list[int], p: Preprocess, policy: str) -> str:
        mode = {"bilinear": "linear", "bicubic": "cubic"}[p.interpolation]
        x = self.node(
            "Resize", [x, "", "", self.constant("sizes", sizes)], "resized", axes=[2, 3], mode=mode, antialias=1,
            cubic_coeff_a=-0.5, coordinate_transformation_mode="half_pixel", keep_aspect_ratio_policy=policy,
        )  # fmt: skip
        return self._round(x, "levels")

    def _round(self, x: str, name: str) -> str:
        half, low, high = (
            self.constant(f"{name}_{key}", np.array(v)) for key, v in (("half", 0.5), ("0", 0.0), ("255", 255.0))
        )
        x = self.node("Floor", [self.node("Add", [x, half], f"{name}_up")], f"{name}_floor")
        return self.node("Clip", [x, low, high], name)
