"""How to add a runtime: an object that opens a file and turns images into logits, here onnx's own evaluator."""

from __future__ import annotations

import numpy as np
import slimzoo
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from compress.benchmark.runtimes import RUNTIMES
from compress.deployment.export import network_of


class Reference:
    name, device, precision = "onnx-reference", "cpu", "fp32"

    def __init__(self, path: str, *, threads: int = 1, precision: str | None = None) -> None:
        network = network_of(path)
        self.input_shape = tuple(dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim[1:])
        self.evaluator = ReferenceEvaluator(network)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:  # (B, C, H, W) -> (B, classes)
        return np.asarray(next(iter(self.evaluator.run(None, {"input": batch}))))


def test_a_runtime_of_ones_own_answers_as_the_others(tmp_path, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "onnx-reference", Reference)
    slimzoo.fit("digits", model="lenet5_caffe", method="scratch", epochs=0, out=tmp_path / "fitted")
    slimzoo.export(tmp_path / "fitted")
    file = str(tmp_path / "fitted" / "model.onnx")
    ours, theirs = (RUNTIMES[name](file) for name in ("onnx-reference", "onnxruntime"))
    images = np.random.default_rng(0).standard_normal((2, *ours.input_shape), dtype=np.float32)
    np.testing.assert_allclose(ours.run(images), theirs.run(images), atol=1e-3)
