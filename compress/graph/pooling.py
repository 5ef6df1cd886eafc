"""Max pooling over a border: what onnxruntime makes of a Pad before a MaxPool is right, or is kept from being done.

A Pad by -inf, or by the least float32, is the pooling's own padding, which is never the maximum. onnxruntime takes a
Pad by 0 for that too (its PadFusion, seen in 1.31), so that a maximum of values below 0 comes out as that of the values
instead of 0; a border of 6e-8, float16's least, is the same in any answer, and stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compress.graph.nodes import set_nodes_
from compress.graph.operators import all_nodes

LEAST = float(np.finfo(np.float32).min)
NOT_QUITE_ZERO = np.array(2.0**-24, np.float32)
NOT_QUITE_ZERO_NAME = "border_not_quite_zero"


def pad_in_pooling_(graph: onnx.GraphProto) -> None:
    """Take out each Pad by the least before MaxPool nodes alone, which pad by themselves then; keep the others.

    MaxPool's own padding is less than its kernel; where it would not be, the Pad stays too.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    gone: set[str] = set()
    zeros = []
    for pad, pools in _before_pooling(graph):
        value = _value(pad, constants)
        if value == 0:
            zeros.append(pad)
        elif value is not None and value <= LEAST and _moved(pad, pools, constants[pad.input[1]]):
            gone.add(pad.output[0])
    if zeros:
        graph.initializer.append(numpy_helper.from_array(NOT_QUITE_ZERO, NOT_QUITE_ZERO_NAME))
        for pad in zeros:
            pad.input[:] = [*pad.input[:2], NOT_QUITE_ZERO_NAME, *pad.input[3:]]
    if gone:
        set_nodes_(graph, [node for node in graph.node if node.output[0] not in gone])
    if gone or zeros:
        left = set(_read(graph))
        for tensor in [tensor for tensor in graph.initializer if tensor.name not in left]:
            graph.initializer.remove(tensor)


def _before_pooling(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, list[onnx.NodeProto]]]:
    """Each Pad whose output goes to MaxPool nodes alone, and those."""
    read = _read(graph)
    pools: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "MaxPool" and len(node.output) == 1:
            pools.setdefault(node.input[0], []).append(node)
    for node in graph.node:
        after = pools.get(node.output[0], []) if node.op_type == "Pad" else []
        if after and len(after) == read[node.output[0]]:
            yield node, after


def _read(graph: onnx.GraphProto) -> Counter[str]:
    """How often each tensor is read, also by the branches and loops inside, or given out."""
    return Counter([*(name for node in all_nodes(graph) for name in node.input), *(v.name for v in graph.output)])


def _value(pad: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> float | None:
    """What the border is filled with; None where that or its width is not a constant, or it is along no map's sides."""
    mode = next((attribute.s for attribute in pad.attribute if attribute.name == "mode"), b"constant")
    along = len(pad.input) > 3 and pad.input[3]
    if mode != b"constant" or along or len(pad.input) < 2 or not {*filter(None, pad.input[1:])} <= constants.keys():
        return None
    pads = constants[pad.input[1]].reshape(2, -1)
    if pads[:, :2].any() or (pads < 0).any():  # type: ignore[operator]
        return None
    return float(constants[pad.input[2]].reshape(-1)[0]) if len(pad.input) > 2 and pad.input[2] else 0.0


def _moved(pad: onnx.NodeProto, pools: list[onnx.NodeProto], pads: NDArray[np.generic]) -> bool:
    """Let the poolings read what the Pad does, and pad; False, and nothing done, where one of them cannot."""
    border = pads.reshape(2, -1)[:, 2:]
    new = []
    for pool in pools:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute}
        own = np.array(given.get("pads", [0] * border.size)).reshape(2, -1)
        whole = own + border
        if given.get("auto_pad", b"NOTSET") != b"NOTSET" or (whole >= np.array(given["kernel_shape"])).any():
            return False
        new.append([int(rows) for rows in whole.ravel()])
    for pool, rows in zip(pools, new, strict=True):
        pool.input[0] = pad.input[0]
        kept = [each for each in pool.attribute if each.name not in ("pads", "auto_pad")]
        del pool.attribute[:]
        pool.attribute.extend([*kept, helper.make_attribute("pads", rows)])
    return True
