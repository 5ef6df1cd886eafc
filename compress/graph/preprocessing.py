"""Around the network, as ONNX nodes: RGB bytes of any size in, logits and their probabilities out.

Every node is named "preprocess/..." or "postprocess/...", so that `network_of` can take the network out again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from zoo.preprocess import Preprocess

PIXELS = "pixels"  # uint8 (batch, height, width, 3)
INPUT = "input"  # float32 (batch, C, H, W)
PROBABILITIES = "probabilities"  # float32 (batch, K)
PREFIX = "preprocess/"
SIZED = "sized_shape"
AROUND = (PREFIX, "postprocess/")


def with_preprocessing(network: onnx.ModelProto, preprocess: Preprocess) -> onnx.ModelProto:
    """The network with preprocessing before it: its input becomes "pixels", uint8 (batch, height, width, 3).

    Of a network that takes prepared tensors it is the network itself.

    Resizing is ONNX's Resize with antialias (cubic coefficient -0.5, weights outside the image left out) of bytes, rows
    before columns and each rounded to 8-bit levels, as `Preprocess` has Pillow do it: onnxruntime's differs by at most
    1 level, where fixed-point weights round the other way. What handles the whole image handles its bytes: as floats it
    takes four times the memory and, of 2 megapixels, 2.5 times as long.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network)
    if preprocess.is_prepared:
        return model
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


def with_probabilities(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a second output: the softmax of its first."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    logits = whole.graph.output[0]
    softmax = helper.make_node("Softmax", [logits.name], [PROBABILITIES], name=f"{AROUND[1]}softmax", axis=-1)
    whole.graph.node.append(softmax)
    output = whole.graph.output.add()
    output.CopyFrom(logits)
    output.name = PROBABILITIES
    return whole


def network_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network alone, its input the float tensor again and the logits its output; a foreign file stays as it is."""
    network = onnx.ModelProto()
    network.CopyFrom(model)
    graph = network.graph
    kept = [node for node in graph.node if not node.name.startswith(AROUND)]
    if len(kept) == len(graph.node):
        return network
    shape = _input_shape(model)
    initializers = [tensor for tensor in graph.initializer if not tensor.name.startswith(PREFIX)]
    outputs = [value for value in graph.output if value.name != PROBABILITIES]
    for field, values in ((graph.node, kept), (graph.initializer, initializers), (graph.output, outputs)):
        del field[:]
        field.extend(values)
    if shape is not None:
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shape]))
    return network


def _input_shape(model: onnx.ModelProto) -> tuple[int, int, int] | None:
    """(C, H, W), by the last of the preprocessing's shapes; None where there is no preprocessing."""
    shape = next((tensor for tensor in model.graph.initializer if tensor.name == PREFIX + SIZED), None)
    if shape is None:
        return None
    _, channels, height, width = numpy_helper.to_array(shape).tolist()
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

    def node(self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes: Any) -> str:
        output = output or PREFIX + name
        self.nodes.append(helper.make_node(kind, inputs, [output], name=PREFIX + name, **attributes))
        return output

    def build(self, p: Preprocess) -> None:
        x = PIXELS
        if p.channels == 1:
            x = self.node("Cast", [x], "float", to=TensorProto.FLOAT)
            luma = self.constant("luma", np.array([0.299, 0.587, 0.114]))  # ITU-R BT.601, as Pillow's "L"
            x = self.node(
                "ReduceSum", [self.node("Mul", [x, luma], "weighted"), self.constant("last", [-1])], "luma_sum"
            )
            x = self.node("Cast", [self._round(x)], "grey_levels", to=TensorProto.UINT8)
        x = self._fit(x, p)
        shape = (1, p.channels, 1, 1)
        mean = self.constant("mean", (np.array(p.mean) * 255).reshape(shape))
        std = self.constant("std", (np.array(p.std) * 255).reshape(shape))
        sized = self.constant(SIZED, [0, p.channels, *p.size])
        x = self.node("Reshape", [x, sized], "sized")  # dynamic sizes end here
        self.node("Div", [self.node("Sub", [x, mean], "centred"), std], "normalized", INPUT)

    def _fit(self, x: str, p: Preprocess) -> str:
        size = self.constant("size", list(p.size))
        if p.mode == "squash":
            return self._resize(x, size, p)
        axes = self.constant("axes", [2, 3])
        if p.mode == "crop":
            assert p.resize_to is not None
            sides = self._scaled(x, [p.resize_to, p.resize_to], "ReduceMax")
            x = self._resize(x, sides, p)
            start = self._half(self.node("Sub", [sides, size], "excess"))
            return self.node("Slice", [x, start, self.node("Add", [start, size], "crop_ends"), axes], "cropped")
        background = np.array(p.background, dtype=np.float32)
        if p.channels == 1:
            background = np.floor(background @ np.array([0.299, 0.587, 0.114]) + 0.5).reshape(1)
        behind = self.constant("background", background.reshape(1, p.channels, 1, 1))
        inner = self.node("Min", [self._scaled(x, list(p.size), "ReduceMin"), size], "inner")
        x = self._resize(x, inner, p)
        margin = self.node("Sub", [size, inner], "margin")
        before = self._half(margin)
        pads = self.node("Concat", [before, self.node("Sub", [margin, before], "margin_after")], "pads", axis=0)
        x = self.node("Pad", [self.node("Sub", [x, behind], "on_zero"), pads, "", axes], "padded")
        return self.node("Add", [x, behind], "on_background")

    def _half(self, pixels: str) -> str:
        return self.node("Div", [pixels, self.constant("two", [2, 2])], "half")  # rounded down, being positive

    def _scaled(self, x: str, target: list[int], choose: str) -> str:
        """(2,) sides of x, channels last, times the larger or smaller of target / sides, by `zoo.preprocess.scaled`.

        In double precision, as Python counts, so that no side differs by a pixel.
        """
        sides = self.node("Shape", [x], "sides", start=1, end=3)
        sides = self.node("Cast", [sides], "sides_double", to=TensorProto.DOUBLE)
        self.initializers.append(numpy_helper.from_array(np.array(target, dtype=np.float64), PREFIX + "target"))
        self.initializers.append(numpy_helper.from_array(np.array([0.5, 0.5]), PREFIX + "double_half"))
        scale = self.node(choose, [self.node("Div", [PREFIX + "target", sides], "scales")], "scale", keepdims=1)
        exact = self.node("Add", [self.node("Mul", [sides, scale], "exact"), PREFIX + "double_half"], "exact_up")
        whole = self.node("Cast", [self.node("Floor", [exact], "whole")], "whole_sides", to=TensorProto.INT64)
        return self.node("Max", [whole, self.constant("one", [1, 1])], "scaled_sides")

    def _resize(self, x: str, sides: str, p: Preprocess) -> str:
        """Float levels, channels first, of bytes that have their channels last.

        Where the channels go first is a matter of speed: onnxruntime resizes by cubes 1.8 times as fast with them
        first, and by lines with them last, in kernels that it has for these.
        """
        cubic = p.interpolation == "bicubic"
        if cubic:
            x = self._channels_first(x)
        for name, axis, position in (("width", 2, 1), ("height", 1, 0)):
            bounds = [self.constant(f"{name}_{key}", [v]) for key, v in (("from", position), ("to", position + 1))]
            side = self.node("Slice", [sides, *bounds], f"{name}_side")
            x = self.node(
                "Resize",
                [x, "", "", side],
                f"{name}_resized",
                axes=[axis + cubic],
                mode="cubic" if cubic else "linear",
                antialias=1,
                exclude_outside=1,
                cubic_coeff_a=-0.5,
                coordinate_transformation_mode="half_pixel",
            )
        x = x if cubic else self._channels_first(x)
        return self.node("Cast", [x], "levels", to=TensorProto.FLOAT)

    def _channels_first(self, x: str) -> str:
        return self.node("Transpose", [x], "channels_first", perm=[0, 3, 1, 2])

    def _round(self, x: str) -> str:
        return self.node("Floor", [self.node("Add", [x, self.constant("grey_half", np.array(0.5))], "grey_up")], "grey")
