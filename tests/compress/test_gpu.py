"""What needs a CUDA device: training there, and the rows of the benchmark."""

import numpy as np
import pytest
import torch

from compress.benchmark.harness import bench
from compress.benchmark.runtimes import RUNTIMES
from transfer.fitting.step import fit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_fit_and_bench_on_cuda(tmp_path):
    out = tmp_path / "lenet"
    fitted = fit("digits", model="lenet5", method="scratch", epochs=3, out=out)
    assert fitted.record["metrics"]["after"]["test"]["top1"] > 0.8
    for runtime in ("torch-cuda", "torch-cuda-graph", "torch-cuda-compile"):
        rows = bench([out], runtimes=[runtime], rounds=3)["rows"]
        assert {row["precision"] for row in rows} == {"fp32", "tf32", "fp16", "bf16"}
        for row in rows:
            assert row["reason"] is None, row
            assert 0 < row["device_ms"] <= row["median_ms"]
            assert row["device_peak_mb"] > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_says_what_eager_mode_says(tmp_path, precision):
    out = tmp_path / "lenet"
    fit("digits", model="lenet5", method="scratch", epochs=1, out=out)
    eager, graph = (RUNTIMES[name](out, precision=precision) for name in ("torch-cuda", "torch-cuda-graph"))
    for batch in (4, 4, 7):
        images = np.random.default_rng(batch).normal(size=(batch, *eager.input_shape)).astype(np.float32)
        np.testing.assert_allclose(graph.run(images), eager.run(images), rtol=1e-2, atol=1e-2)


def test_a_batch_that_does_not_fit_on_the_gpu_is_said(tmp_path):
    out = tmp_path / "lenet"
    fit("digits", model="lenet5", method="scratch", epochs=1, out=out)
    total = torch.cuda.get_device_properties(0).total_memory
    batch = total // (8 * 28 * 28 * 4)  # of the first layer's outputs alone, six channels before and after tanh
    (row,) = bench([out], runtimes=["torch-cuda"], batch=batch, rounds=2, launches=1)["rows"][:1]
    assert "does not fit into the memory of" in row["reason"]
