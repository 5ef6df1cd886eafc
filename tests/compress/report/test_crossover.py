"""From which batch on the GPU pays, on rows whose crossing is known."""

from __future__ import annotations

import pytest

from compress.report.crossover import crossovers
from compress.report.timing import crossover_table


def row(device, batch, per_s, *, model="m", runtime=None, precision="fp32"):
    runtime = runtime or {"cpu": "onnxruntime", "NVIDIA X": "torch-cuda"}[device]
    ms = None if per_s is None else 1000 * batch / per_s
    given = {"model": model, "runtime": runtime, "device": device, "precision": precision, "batch": batch}
    return given | {"median_ms": ms, "images_per_s": per_s}


def test_where_two_power_laws_cross():
    """The CPU does 400 images a second at any batch; the GPU 100 times the batch: equal at 4."""
    rows = [row("cpu", batch, 400.0) for batch in (1, 2, 8, 32)]
    rows += [row("NVIDIA X", batch, 100.0 * batch) for batch in (1, 2, 8, 32)]
    (found,) = crossovers(rows)
    assert found["from_batch"] == pytest.approx(4.0)
    assert found["verdict"] == (
        "below batch 4 use the CPU (onnxruntime in fp32), from there the GPU (torch-cuda in fp32)"
    )
    assert [one["batch"] for one in found["batches"]] == [1, 2, 8, 32]


def test_each_device_is_taken_at_its_fastest():
    rows = [row("cpu", 1, 100.0), row("cpu", 1, 300.0, runtime="openvino", precision="int8")]
    rows += [row("NVIDIA X", 1, 200.0), row("NVIDIA X", 1, 900.0, precision="bf16"), row("NVIDIA X", 4, None)]
    (found,) = crossovers(rows)
    assert found["verdict"] == "use the GPU (torch-cuda in bf16): it is faster from batch 1 on"
    assert found["batches"][0]["cpu"]["runtime"] == "openvino"
    assert found["from_batch"] == 1


def test_a_gpu_that_never_pays():
    rows = [row("cpu", batch, 400.0) for batch in (1, 8)] + [row("NVIDIA X", batch, 10.0 * batch) for batch in (1, 8)]
    (found,) = crossovers(rows)
    assert found["from_batch"] is None
    assert found["verdict"] == "use the CPU (onnxruntime in fp32): up to batch 8 the GPU is not faster"


def test_a_lead_that_is_lost_again_does_not_count():
    rows = [row("cpu", batch, 100.0) for batch in (1, 2, 4, 8)]
    rows += [row("NVIDIA X", batch, per_s) for batch, per_s in ((1, 200.0), (2, 50.0), (4, 200.0), (8, 300.0))]
    (found,) = crossovers(rows)
    assert 2 < found["from_batch"] < 4


def test_a_million_images_are_priced_by_the_hour():
    rows = [row("cpu", 1, 100.0), row("NVIDIA X", 1, 1000.0)]
    (found,) = crossovers(rows, price_cpu=0.36, price_gpu=3.6)
    assert found["batches"][0]["cpu"]["million"] == pytest.approx(1.0)  # 10,000 s
    assert found["batches"][0]["gpu"]["million"] == pytest.approx(1.0)  # 1,000 s
    assert crossovers(rows)[0]["batches"][0]["cpu"]["million"] is None


def test_nothing_is_said_of_one_device_alone():
    assert crossovers([row("cpu", 1, 100.0), row("cpu", 8, 100.0), row("NVIDIA X", 4, 50.0)]) == []


def test_the_report_prices_both():
    rows = [row("cpu", 1, 100.0), row("NVIDIA X", 1, 1000.0)]
    table = crossover_table(rows, 0.36, 7.2)
    assert [cell.text for cell in table.rows[0]] == [
        "`m`",
        "1",
        "onnxruntime",
        "100",
        "torch-cuda",
        "1000",
        "1.00",
        "2.00",
    ]
    assert table.rows[1][0].text == "use the GPU (torch-cuda in fp32): it is faster from batch 1 on."
    assert len(table.head) == 8
    assert len(crossover_table(rows, None, None).head) == 6
