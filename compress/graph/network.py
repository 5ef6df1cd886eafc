"""The network alone as an ONNX graph, exported from torch: BatchNorm folded, a free batch, layers under their names."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import onnx

from compress.graph import preprocessing
from compress.graph.pooling import pad_in_pooling_
from zoo.errors import SlimzooError, first_line

if TYPE_CHECKING:
    from torch import nn

OPSET = 20
FP32_TOLERANCE = 1e-4  # of the logits' standard deviation
BATCHES = (1, 3, 8)  # sizes at which two forms of a network are compared


def export_network(model: Any, input_size: tuple[int, int, int], *, optimize: bool = True) -> onnx.ModelProto:
    """The network alone as ONNX: "input" float32 (batch, C, H, W) -> "logits" (batch, K); BatchNorm folded, one file.

    Args:
        optimize: without it the graph is as it was traced, and every tensor of the model has its own name in it.

    Raises:
        SlimzooError: torch cannot export the model, or the batch did not stay dynamic.
    """
    program = _exported(model.eval(), input_size, optimize=optimize)
    network: onnx.ModelProto = program.model_proto
    if not network.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise SlimzooError("the exported graph has a fixed batch: the model's forward uses the batch size as a number")
    for node in network.graph.node:
        del node.metadata_props[:]  # stack traces of this machine
    pad_in_pooling_(network.graph)
    name_layers_(network)
    for value in (*network.graph.input, *network.graph.output, *network.graph.value_info):
        del value.metadata_props[:]
    return network


def _exported(model: Any, input_size: tuple[int, int, int], *, optimize: bool) -> Any:
    """As torch's exporter gives it: with attention as the model calls it, else as plain products and a softmax."""
    import torch

    from compress.graph.attention import PlainAttention

    example = torch.zeros(2, *input_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter announces its own coming changes
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        failure = None
        for attention in (nullcontext(), PlainAttention()):
            try:
                with attention, _out_of_place(model):
                    return torch.onnx.export(
                        model,
                        (example,),
                        dynamo=True,
                        external_data=False,
                        opset_version=OPSET,
                        verbose=False,
                        input_names=[preprocessing.INPUT],
                        output_names=["logits"],
                        dynamic_shapes=({0: "batch"},),
                        optimize=optimize,
                    )
            except Exception as error:  # the exporter's own kinds differ from version to version
                failure = failure or error
    raise SlimzooError(f"torch cannot export this model to ONNX: {_reason(failure)}") from failure


@contextmanager
def _out_of_place(model: nn.Module) -> Iterator[None]:
    """Let no module write into its input meanwhile: the exporter takes less time so, 8 to 38% for five networks."""
    written = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    for module in written:
        module.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in written:
            module.inplace = True  # type: ignore[assignment]


def _reason(error: BaseException | None) -> str:
    """The first line of what the exporter's error came of; its own are advice."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return "" if error is None else first_line(error)


def name_layers_(network: onnx.ModelProto) -> None:
    """A node that multiplies by a module's weight gets the module's name, where no other node has it."""
    taken = {node.name for node in network.graph.node}
    for node in network.graph.node:
        name = node.input[1].removesuffix(".weight") if len(node.input) > 1 else ""
        if name and name != node.input[1] and name not in taken:
            taken.add(name)
            node.name = name
