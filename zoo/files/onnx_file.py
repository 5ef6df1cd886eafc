"""load_onnx, the only reader of ONNX files: whatever is in one, nothing outside its folder is read, and nothing runs.

A file from elsewhere can name other files as the place of its weights, claim tensors of any size, and call itself. What
is wrong is told in one line; what is returned holds all of its weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from zoo.errors import UsageError, first_line
from zoo.finite import check_values

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# operators whose further inputs are weights
WEIGHTED = tuple(
    (
        "BatchNormalization Conv ConvTranspose GRU Gemm GroupNormalization InstanceNormalization LSTM "
        "LayerNormalization MatMul PRelu RNN"
    ).split()
)
MOST_BYTES = 2**31 - 1  # of a protobuf message
MOST_ELEMENTS = 2**30  # of a tensor inside the network, for one image: 4 GB of floats
# bits of an element; strings have no fixed size, and no weight is one
BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}


def load_onnx(path: str | Path) -> onnx.ModelProto:
    """Read a file and the weights that it keeps beside itself, and check it.

    Raises:
        UsageError: there is no such file; it is not ONNX, is damaged, lacks its weights or has some that are NaN,
            reaches for what is not in its folder, or would take absurd memory.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} is not a file; `slimzoo export DIR` writes DIR/model.onnx")
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"{path}: {path.stat().st_size:,} bytes; an ONNX file has at most {MOST_BYTES:,}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UsageError(f"{path} is not an ONNX file, or is damaged: {error}") from error
    if model.graph.node and not model.opset_import:
        raise UsageError(f"{path} does not say of which opset its operators are; export it again")
    if not model.graph.node:
        raise UsageError(f"{path} holds no network: it is not an ONNX file, or is damaged")
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            _fetch_(tensor, path)
        _check_size(tensor, path)
    _check_calls(model, path)
    _check_finite(model, path)
    _sort_(model.graph)
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(_for_one_image(model), data_prop=True)
    except Exception as error:  # the checker's and the inference's own kinds, and ValueError of what they serialize
        raise UsageError(f"{path} is not a valid ONNX network: {first_line(error)}") from error
    for value in inferred.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if math.prod(size for size in shape if size > 0) > MOST_ELEMENTS:
            raise UsageError(f"{path}: {value.name} would have the shape {shape}, which no memory holds")
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """All that are stored anywhere in the file."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
        while nodes:
            for attribute in nodes.pop().attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
                for sparse in (
                    *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                    *attribute.sparse_tensors,
                ):
                    yield from (sparse.values, sparse.indices)
                graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _fetch_(tensor: TensorProto, path: Path) -> None:
    """Put the values into the tensor, from a plain file in the same folder."""
    try:
        info = ExternalDataInfo(tensor)
        offset, length = info.offset or 0, info.length
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: where {tensor.name!r} is kept cannot be read: {error}") from error
    place = Path(info.location)
    file = path.parent / place
    if not place.is_absolute() and len(place.parts) == 1 and not os.path.lexists(file):
        raise UsageError(
            f"{path} keeps its weights ({tensor.name!r} first) in {info.location!r}, which is not beside it: put it "
            f"into {path.parent}, or export the network as one file"
        )
    if place.is_absolute() or ".." in place.parts or not info.location or file.is_symlink() or not file.is_file():
        raise UsageError(
            f"{path} keeps {tensor.name!r} in {info.location!r}: wanted a plain file in its own folder; save it as one"
        )
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise UsageError(f"{path} keeps {tensor.name!r} in {info.location!r}, which leads out of its folder")
    size = file.stat().st_size
    length = size - offset if length is None else length
    if offset < 0 or length < 0 or offset + length > size:
        raise UsageError(f"{path}: {tensor.name!r} is {length} bytes at {offset} of {file.name}, which has {size}")
    with file.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(length)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _check_size(tensor: TensorProto, path: Path) -> None:
    """As many values as the shape says."""
    if any(dim < 0 for dim in tensor.dims):
        raise UsageError(f"{path}: {tensor.name!r} has the shape {list(tensor.dims)}")
    elements = math.prod(tensor.dims)
    if tensor.data_type not in BITS:
        if elements > MOST_ELEMENTS:
            raise UsageError(f"{path}: {tensor.name!r} has the shape {list(tensor.dims)}, which no memory holds")
        return
    if tensor.HasField("raw_data"):
        wanted, found = (elements * BITS[tensor.data_type] + 7) // 8, len(tensor.raw_data)
        if wanted != found:
            raise UsageError(
                f"{path}: {tensor.name!r} of the shape {list(tensor.dims)} takes {wanted:,} bytes, {found:,} are there"
            )
        return
    stored = max(
        len(tensor.float_data),
        len(tensor.int32_data),
        len(tensor.int64_data),
        len(tensor.double_data),
        len(tensor.uint64_data),
    )
    if elements > 2 * stored:  # two of four bits are one
        raise UsageError(
            f"{path}: {tensor.name!r} of the shape {list(tensor.dims)} has {elements:,} values, {stored:,} are there"
        )


def _check_finite(model: onnx.ModelProto, path: Path) -> None:
    """No tensor holds NaN, and no weight of a layer is infinite; a mask may well hold -inf."""
    weights = {name for node in model.graph.node if node.op_type in WEIGHTED for name in node.input[1:]}
    constants = [
        (node.output[0], attribute.t)
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
    for name, tensor in (*((tensor.name, tensor) for tensor in model.graph.initializer), *constants):
        if tensor.data_type in FLOATS and (name in weights or math.prod(tensor.dims) > 1):
            check_values(numpy_helper.to_array(tensor).astype(np.float32), name, path, infinite=name not in weights)


def _sort_(graph: onnx.GraphProto) -> None:
    """Nodes after those that make what they read, as the standard wants it and some converters do not write it."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    needs = {place: {makers[name] for name in _read(node) if name in makers} for place, node in enumerate(graph.node)}
    if all(place > before for place, all_before in needs.items() for before in all_before):
        return
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError:
        return  # the checker says so
    nodes = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, its branches and loops too."""
    nodes = [node]
    while nodes:
        each = nodes.pop()
        yield from each.input
        for attribute in each.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                nodes += graph.node
                yield from (value.name for value in graph.output)


def _check_calls(model: onnx.ModelProto, path: Path) -> None:
    """No function of the file calls itself, through whichever others."""
    functions = {(function.domain, function.name): function for function in model.functions}
    done: set[tuple[str, str]] = set()
    for start in functions:
        stack: list[tuple[tuple[str, str], bool]] = [(start, False)]
        active: set[tuple[str, str]] = set()
        while stack:
            name, leaving = stack.pop()
            if leaving:
                active.discard(name)
                done.add(name)
                continue
            if name in active:
                raise UsageError(f"{path}: its function {name[1]!r} calls itself")
            if name in done:
                continue
            active.add(name)
            stack.append((name, True))
            called = {(node.domain, node.op_type) for node in functions[name].node}
            stack += [(other, False) for other in called if other in functions]


def _for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose batch is 1, so that sizes are numbers."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in single.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and not dims[0].dim_value:
            dims[0].dim_value = 1
    return single
