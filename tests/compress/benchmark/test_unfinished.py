"""Ctrl-C in the middle of a benchmark: what was measured is kept, and an equal one goes on with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.benchmark import measuring
from compress.benchmark.harness import bench
from compress.benchmark.process import WorkerProcess
from compress.report import statistics
from zoo.errors import Interrupted

QUICK = {"threads": 1, "rounds": 6, "launches": 3, "seconds_per_round": 0.01}


@pytest.fixture(autouse=True)
def calm(monkeypatch):
    """Other tests run beside these."""
    monkeypatch.setattr(statistics, "DISTURBED", 1.0)


@pytest.fixture
def models(tmp_path):
    for name, scale in (("a", 1.0), ("b", 2.0)):
        kernel = numpy_helper.from_array(np.full((4, 3, 3, 3), scale, dtype=np.float32), "w")
        nodes = [helper.make_node("Conv", ["input", "w"], ["y"]), helper.make_node("Flatten", ["y"], ["logits"])]
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 144])]
        graph = helper.make_graph(nodes, "network", inputs, outputs, [kernel])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, tmp_path / f"{name}.onnx")
    return [tmp_path / "a.onnx", tmp_path / "b.onnx"]


@pytest.fixture
def opened(monkeypatch):
    """The processes that were started."""
    started = []

    class Counted(WorkerProcess):
        def __init__(self, threads):
            super().__init__(threads)
            started.append(self)

    monkeypatch.setattr(measuring, "WorkerProcess", Counted)
    return started


def interrupted(models, save, after):
    """Run until so many rounds are measured, then Ctrl-C; gives what was kept."""

    def stop(what, done, total, note):
        if (what, done) == ("measuring", after):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        bench(models, **QUICK, save=save, progress=stop)
    assert not save.exists()
    return caught.value, Path(f"{save}.batch-1.unfinished")


def test_it_goes_on_where_it_was(models, opened, tmp_path):
    error, kept = interrupted(models, tmp_path / "bench.json", 5)
    assert isinstance(error, Interrupted)
    assert "goes on where it was" in str(error)
    document = json.loads(kept.read_text())
    assert document["launches"] == 2
    assert len(opened) == 9  # a, b and a's twin, three times
    result = bench(models, **QUICK, save=tmp_path / "bench.json")
    assert len(opened) == 12
    assert not kept.exists()
    for row, measured in zip(result["rows"], document["rows"], strict=True):
        medians = [float(np.median(ms)) for ms in measured["rounds"]]
        assert row["rounds_ms"][: len(medians)] == medians
        assert sorted(set(row["launches"])) == [0, 1, 2]
    assert json.loads((tmp_path / "bench.json").read_text()) == result


def test_before_the_first_launch_ends_there_is_nothing_to_keep(models, opened, tmp_path):
    error, kept = interrupted(models, tmp_path / "bench.json", 1)
    assert not isinstance(error, Interrupted)
    assert not kept.exists()


def test_what_is_another_benchmark_is_not_gone_on_with(models, opened, tmp_path):
    _, kept = interrupted(models, tmp_path / "bench.json", 5)
    shutil.copy(models[1], models[0])  # another network of the same name
    before = len(opened)
    bench(models, **QUICK, save=tmp_path / "bench.json")
    assert len(opened) == before + 9
    assert not kept.exists()


def test_a_damaged_file_is_begun_anew(models, opened, tmp_path):
    _, kept = interrupted(models, tmp_path / "bench.json", 5)
    kept.write_bytes(kept.read_bytes()[:100])
    before = len(opened)
    bench(models, **QUICK, save=tmp_path / "bench.json")
    assert len(opened) == before + 9
