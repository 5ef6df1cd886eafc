"""Two bytes a weight: float16, whose range is narrow, and bfloat16, whose steps are coarse."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compress.graph.layers import macs_by_layer, with_stored_weights
from compress.graph.nodes import set_nodes_
from compress.graph.run import tensors_of
from compress.quantization.converted import Converted, converted, stored_weights
from compress.quantization.ptq import activations
from zoo.errors import SlimzooError

FP16, BF16 = "fp16", "bf16"
LARGEST = float(np.finfo(np.float16).max)  # 65504
HEADROOM = 2  # times what the images showed, that other images may show
SUFFIX = "_bf16"
INSTEAD = "keep the float model"


def to_float16(network: onnx.ModelProto, images: Iterable[NDArray[np.float32]]) -> Converted:
    """Weights and arithmetic in float16; the network's input and its logits stay float32.

    Nodes that read or write values beyond float16's range stay in float32: stored ones, and activations that on these
    images come within a factor of `HEADROOM` of it. Between two such nodes nothing is rounded. Weights nearer to 0 than
    6e-8, float16's least, become that, and zeros stay zeros. Where onnxruntime has no kernel for float16, as for most
    operators on the CPU, it computes in float32 what is stored in float16, and is not faster.

    Args:
        images: (B, C, H, W) batches, gone through twice.

    Raises:
        SlimzooError: values that are not finite, before or in float16; all layers had to stay in float32.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    network = with_stored_weights(network)
    large = {name for name, most in _largest(network, images).items() if HEADROOM * most > LARGEST}
    for tensor in network.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            large |= {tensor.name} if (values[np.isfinite(values)] > LARGEST).any() else set()
    kept = [node.name for node in network.graph.node if large.intersection((*node.input, *node.output))]
    copied = onnx.ModelProto()
    copied.CopyFrom(network)
    made = convert_float_to_float16(
        copied, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=kept
    )
    set_nodes_(made.graph, _without_detours(made, {node.name for node in network.graph.node}))
    del made.graph.value_info[:]
    done = macs_by_layer(network).keys() - set(kept)
    result = converted(FP16, network, made, done, arithmetic="in float16", kept=kept, instead=INSTEAD)
    for found in tensors_of(made, [made.graph.output[0].name], images):
        if not all(np.isfinite(values).all() for values in found.values()):
            raise SlimzooError("in float16 the network's answers are not finite; use bf16, or keep the float model")
    return result


def _largest(network: onnx.ModelProto, images: Iterable[NDArray[np.float32]]) -> dict[str, float]:
    """Find each activation's largest magnitude; -inf, which a mask of attention adds, is in float16 too."""
    found: dict[str, float] = {}
    for tensors in tensors_of(network, activations(network), images):
        for name, values in tensors.items():
            if np.isnan(values).any():
                raise SlimzooError(f"{name} takes values that are NaN; check the images and the Preprocess")
            magnitudes = np.abs(values[np.isfinite(values)])
            found[name] = max(found.get(name, 0.0), float(magnitudes.max(initial=0)))
    return found


def to_bfloat16(network: onnx.ModelProto, images: Iterable[NDArray[np.float32]] = ()) -> Converted:
    """Weights stored as bfloat16, rounded to the nearest; arithmetic in float32.

    onnxruntime's CPU provider has no convolution and no matrix product of bfloat16. A Cast makes float32 of each
    weight, once, when onnxruntime opens the file: half the bytes on disk, the same speed, and it runs everywhere. Only
    tensors of two dimensions and more are rounded: biases and norms are few, and matter more.

    Raises:
        SlimzooError: the file did not become smaller.
    """
    network = with_stored_weights(network)
    made = onnx.ModelProto()
    made.CopyFrom(network)
    casts = []
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            name, half = tensor.name, tensor.name + SUFFIX
            rounded = _rounded_to_bfloat16(numpy_helper.to_array(tensor))
            casts.append(helper.make_node("Cast", [half], [name], name=half, to=TensorProto.FLOAT))
            tensor.CopyFrom(helper.make_tensor(half, TensorProto.BFLOAT16, tensor.dims, rounded.tobytes(), raw=True))
    set_nodes_(made.graph, [*casts, *made.graph.node])
    return converted(
        BF16,
        network,
        made,
        list(stored_weights(network)),
        suffix=SUFFIX,
        instead=INSTEAD,
        arithmetic="stored as bfloat16, which becomes float32 when the file is opened: half the bytes, the same speed",
    )


def _rounded_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float's bits, after rounding to the nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def _without_detours(made: onnx.ModelProto, names: set[str]) -> list[onnx.NodeProto]:
    """The converter's nodes in order: one Cast a tensor and type, and none there and back between nodes in float32.

    Args:
        names: of the network's own nodes; the others are Casts.
    """
    nodes = {node.output[0]: node for node in made.graph.node}  # it casts again for each reader, to the same name
    casts = [node for node in nodes.values() if node.name not in names]
    halves = {node.output[0]: node.input[0] for node in casts if node.attribute[0].i == TensorProto.FLOAT16}
    detours = {node.output[0]: halves[node.input[0]] for node in casts if node.input[0] in halves}
    results = {detours[value.name]: value.name for value in made.graph.output if value.name in detours}
    for node in nodes.values():
        for tensors in (node.input, node.output):
            for i, name in enumerate(tensors):
                straight = detours.get(name, name) if tensors is node.input else name
                tensors[i] = results.get(straight, straight)
    for name in detours:
        del nodes[name]
    read = {name for node in nodes.values() for name in node.input}
    needed = [node for name, node in nodes.items() if name not in halves or name in read]
    makers = {name: i for i, node in enumerate(needed) for name in node.output}
    order = TopologicalSorter({i: {makers[n] for n in node.input if n in makers} for i, node in enumerate(needed)})
    return [needed[i] for i in order.static_order()]
