"""What needs a CUDA device: training there, and the rows of the benchmark."""

import pytest
import torch

from compress.benchmark.harness import bench
from transfer.fitting.step import fit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_fit_and_bench_on_cuda(tmp_path):
    out = tmp_path / "lenet"
    fitted = fit("digits", model="lenet5", method="scratch", epochs=3, out=out)
    assert fitted.record["metrics"]["after"]["test"]["top1"] > 0.8
    rows = [row for row in bench([out], runtimes=["torch-cuda"], rounds=3)["rows"] if row["device"] == "cuda"]
    assert {row["precision"] for row in rows} >= {"fp32", "tf32", "fp16", "bf16"}
    assert all(row["median_ms"] > 0 for row in rows)
