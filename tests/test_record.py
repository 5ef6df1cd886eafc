"""A recorded figure says what it was measured on and how to measure it again."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def record(tmp_path, monkeypatch):
    import record

    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    return record


def test_result_carries_its_provenance(record):
    path = record.write_result("latency", {"median_ms": 1.5}, "python benchmarks/bench_latency.py")
    written = json.loads(path.read_text())
    assert path.name == "latency.json"
    assert written["figures"] == {"median_ms": 1.5}
    assert written["command"] == "python benchmarks/bench_latency.py"
    assert written["machine"]["processor"]
    assert written["versions"]["python"]
    assert {"commit", "dirty", "date"} <= set(written)


def test_rows_go_on_where_they_were_stopped(record):
    record.RESULTS.mkdir()
    record.Rows("long").keep({"seed": 0, "top1": 0.5}, {"seed": 1, "top1": 0.25})
    again = record.Rows("long")
    assert again.find(seed=1)["top1"] == 0.25
    assert again.find(seed=2) is None
    assert all({"commit", "dirty", "processor"} <= set(row) for row in again.all)
    with pytest.raises(TypeError):
        again.keep({"seed": 2}, {"seed": 3, "top1": object()})
    assert [row["seed"] for row in record.Rows("long").all] == [0, 1]
    again.finish()
    assert record.Rows("long").all == []
