"""Run an ONNX network over batches and see the tensors inside."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from zoo.errors import SlimzooError, UsageError, first_line
from zoo.files.onnx_session import open_session

FAILED = re.compile(r"running (\w+) node\. Name:'([^']*)'")  # in what onnxruntime says of a run
Batches = Iterable[NDArray[np.float32]]


def tensors_of(
    network: onnx.ModelProto, names: Collection[str], batches: Batches
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """For each (B, C, H, W) batch the float tensors of these names, in onnxruntime; the input may be one of them.

    Raises:
        UsageError: there is no batch, or one is not of the network's shape and type.
    """
    import onnxruntime

    batches = _checked(network, batches)
    watched = onnx.ModelProto()
    watched.CopyFrom(network)
    given = network.graph.input[0].name
    inner = [name for name in names if name != given]
    if not inner:
        yield from ({given: batch} for batch in batches)
        return
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told in our words
    session = open_session(watched.SerializeToString(), options)
    for batch in batches:
        try:
            values = session.run(inner, {given: batch})
        except Exception as error:  # onnxruntime's own kinds
            raise failure(error) from error
        yield dict(zip(inner, values, strict=True)) | {given: batch}


def failure(error: Exception) -> SlimzooError:
    """One line for a node that a runtime opened and cannot run."""
    found = FAILED.search(str(error))
    if found is None:
        return SlimzooError(f"onnxruntime cannot run the network: {first_line(error)}")
    kind, name = found.groups()
    return SlimzooError(f"onnxruntime cannot run {kind} {name!r} of the network; keep it in float: --keep {name}")


def _checked(network: onnx.ModelProto, batches: Batches) -> Batches:
    """Check each batch before it is run."""
    shape = [dim.dim_value or None for dim in network.graph.input[0].type.tensor_type.shape.dim]
    wanted = f"wanted float32 ({', '.join(['batch', *(str(size or 'any') for size in shape[1:])])})"
    batch = None
    for batch in batches:
        if not isinstance(batch, np.ndarray):
            raise UsageError(f"images as {type(batch).__name__}; {wanted} arrays, as NumPy has them")
        fits = batch.ndim == len(shape) and all(w in (None, g) for w, g in zip(shape[1:], batch.shape[1:], strict=True))
        if not fits or not len(batch):
            raise UsageError(f"images of shape {batch.shape}; {wanted}: prepare them by the model's Preprocess")
        if batch.dtype != np.float32:
            raise UsageError(
                f"images of {batch.dtype}; {wanted}: prepare them by the model's Preprocess, or convert them"
            )
        yield batch
    if batch is None:
        raise UsageError(f"no images; {wanted}, at least one batch of them")
