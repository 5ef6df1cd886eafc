"""Cuts that are exported through the graph of the whole network."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch

from compress.dependency.cut import cut_copy
from compress.dependency.groups import find_groups
from compress.deployment import alike
from compress.deployment.alike import Alike
from compress.graph.network import export_network
from zoo.create import create_model
from zoo.models.registry import model_entry


@pytest.mark.parametrize(
    ("name", "traced_again"), [("resnet20", 0), ("efficientnet_lite0", 0), ("vgg11", 0), ("vit_tiny", 1)]
)
def test_a_cut_is_exported_as_if_by_itself(name, traced_again, monkeypatch):
    """The same operators and the same logits; where heads are among the constants, by a trace of its own."""
    entry = model_entry(name)
    model = create_model(name, **(entry.tiny or {})).eval()
    side = (entry.tiny or {}).get("image_size", min(entry.input_size[1], 64))
    size = (3, side, side)
    grouping = find_groups(model, torch.empty(1, *size, device="meta"))
    smaller = cut_copy(model, grouping, [np.arange(max(1, group.width // 2)) for group in grouping.groups])
    found, traces = Alike(model, size), []
    monkeypatch.setattr(alike, "export_network", lambda *given: traces.append(given) or export_network(*given))
    exported, expected = found.export(smaller), export_network(smaller, size)
    assert len(traces) == traced_again
    kinds = [Counter(node.op_type for node in proto.graph.node) for proto in (exported, expected)]
    assert kinds[0] == kinds[1]
    x = torch.randn(3, *size, generator=torch.Generator().manual_seed(3))
    (logits,) = onnxruntime.InferenceSession(exported.SerializeToString()).run(None, {"input": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, smaller(x).numpy(), atol=1e-4 * float(smaller(x).std()))
