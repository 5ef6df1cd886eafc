"""Export many cuts of one network: it is traced once, and each cut puts its own tensors into that graph.

Tracing is nearly all of an export's time. Where the graph has widths among its constants (attention that reshapes by
the number of its heads), a cut with its tensors is another function or none; then that cut is traced itself.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn

from compress.graph import preprocessing
from compress.graph.network import FP32_TOLERANCE, export_network

FLAT = "batch_and_the_rest"


class Alike:
    """`export_network` for cuts of one model.

    Raises:
        SlimzooError: see `export_network`.
    """

    def __init__(self, model: nn.Module, input_size: tuple[int, int, int]) -> None:
        self.input_size = input_size
        traced = export_network(model, input_size, optimize=False)
        del traced.graph.value_info[:]  # widths of what lies between
        _free_flattened_(traced.graph)
        self._traced: onnx.ModelProto | None = traced  # None once a cut did not fit: the next will not either

    def export(self, model: nn.Module) -> onnx.ModelProto:
        if self._traced is not None:
            found = self._filled(self._traced, model)
            if found is not None:
                return found
            self._traced = None
        return export_network(model, self.input_size)

    def _filled(self, traced: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto | None:
        """The graph with the model's tensors; None where it does not compute what the model computes."""
        import onnxscript.optimizer

        network, own = onnx.ModelProto(), model.state_dict()
        network.CopyFrom(traced)
        for tensor in network.graph.initializer:
            if tensor.name in own:
                tensor.CopyFrom(numpy_helper.from_array(own[tensor.name].detach().numpy(), tensor.name))
        _regroup_(network.graph, model)
        x = torch.randn(2, *self.input_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model.eval()(x).numpy()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what does not fit is no news
        try:
            network = onnxscript.optimizer.optimize(network)
            session = onnxruntime.InferenceSession(
                network.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            (logits,) = session.run(None, {preprocessing.INPUT: x.numpy()})
        except Exception:  # widths that do not fit: of the optimizer's kinds of errors or of the runtime's
            return None
        same = logits.shape == expected.shape and np.abs(logits - expected).max() <= FP32_TOLERANCE * expected.std()
        return network if same else None


def _free_flattened_(graph: onnx.GraphProto) -> None:
    """Let (B, C, H, W) be flattened to (B, whatever there is) where it was flattened to (B, that many)."""
    made = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        shape = made.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.op_type == "Concat" and len(shape.input) == 2:
            node.input[1] = FLAT
            del node.attribute[:]  # so that 0 is what was there before
    graph.initializer.append(numpy_helper.from_array(np.array([0, -1]), FLAT))


def _regroup_(graph: onnx.GraphProto, model: nn.Module) -> None:
    """Give the convolutions as many groups as the model's have."""
    groups = {f"{name}.weight": m.groups for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in groups:
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = groups[node.input[1]]
