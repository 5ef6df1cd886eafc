"""prune, sparsify, cluster and distill take whatever directory fit writes, by whichever method of its."""

from __future__ import annotations

import pytest

from compress import cluster, distill, prune, sparsify
from transfer.fitting.step import fit
from zoo.cost import count_macs
from zoo.files.model_directory import load_model

SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ("probe", "finetune", "scratch")]


@pytest.mark.parametrize("method", ["prototype", *SLOW])
def test_every_step_takes_it(three, method, tmp_path):
    epochs = {} if method == "prototype" else {"epochs": 2}
    fit(three, model="resnet20", method=method, size=32, **epochs, out=tmp_path / "dense")
    given = {"data": three, "epochs": 1}
    prune(tmp_path / "dense", data=three, macs=0.15, recover=1, out=tmp_path / "pruned")
    sparsify(tmp_path / "pruned", density=0.5, **given, out=tmp_path / "sparse")
    cluster(tmp_path / "sparse", bits=5.0, **given, out=tmp_path / "shared")
    step = distill(tmp_path / "shared", teacher=tmp_path / "dense", **given, out=tmp_path / "taught")
    assert [record["verb"] for record in step.config.lineage] == ["fit", "prune", "sparsify", "cluster", "distill"]
    dense, last = load_model(tmp_path / "dense"), load_model(tmp_path / "taught")
    now, then = (count_macs(each.model, each.config.input_size) for each in (last, dense))
    assert now <= 0.15 * then
    assert step.record["metrics"]["after"]["val"]["n"] == dense.config.lineage[0]["metrics"]["after"]["val"]["n"]
