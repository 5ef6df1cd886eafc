"""Does `slimzoo bench` tell the truth: of equals, of a planted slowdown, and beside other work?

    python benchmarks/bench_harness.py [--repeats 20] [--beside 0 1 2 4 bursts]
    python benchmarks/bench_harness.py --write

EfficientNet-Lite0 at 96 px in onnxruntime, random weights, all threads, every option at its default. In half of the
quiet repeats first, then beside 1, 2 and 4 busy loops and beside bursts of two (0.3 s of every 2 s in the mean, both
exponentially distributed), then in the other half. A quiet one measures the network, itself slowed by 10% and by 3%
(its worker waits after each run, see slowed_worker.py) and ResNet-18; its twin, which `bench` measures anyway, is A
against A. One beside loops measures it against ResNet-18 alone: the truth is the geometric mean of what the quiet
repeats say on the same processor. Rows are kept as they come in results/harness.runs.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from record import Rows, write_result
from slowed_worker import MARK

from compress.benchmark import measuring
from compress.benchmark.harness import bench
from compress.benchmark.machine import describe_machine
from compress.benchmark.process import WorkerProcess
from compress.graph.network import export_network
from zoo.create import create_model

SIDE = 96
SLOWED = (0.10, 0.03)
QUIET, BURSTS = 0, "bursts"
LOOPS = (1, 2, 4, BURSTS)
BUSY = "while True: pass"
BURSTY = """
import random, time
while True:
    end = time.monotonic() + random.expovariate(1 / 0.3)
    while time.monotonic() < end:
        pass
    time.sleep(random.expovariate(1 / 1.7))
"""
OTHER = "resnet18.onnx"


class SlowedProcess(WorkerProcess):
    module = "benchmarks.slowed_worker"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--beside", nargs="+", default=[QUIET, *LOOPS], type=_loops, help="of these; 0 is quiet")
    parser.add_argument("--write", action="store_true", help="only write the result")
    given = parser.parse_args()
    rows = Rows("harness")
    if not given.write:
        measuring.WorkerProcess = SlowedProcess  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as folder:
            files = networks(Path(folder))
            every, half = range(given.repeats), given.repeats // 2
            for loops, numbers in [(QUIET, every[:half]), *((loops, every) for loops in LOOPS), (QUIET, every[half:])]:
                for number in numbers if loops in given.beside else ():
                    one(files if loops == QUIET else [files[0], files[-1]], loops, number, rows)
    print(write_result("harness", {"processors": figures(rows.all)}, "python benchmarks/bench_harness.py"))
    return 0


def _loops(text: str) -> int | str:
    found = next((loops for loops in (QUIET, *LOOPS) if str(loops) == text), None)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: wanted some of {', '.join(map(str, (QUIET, *LOOPS)))}")
    return found


def networks(folder: Path) -> list[Path]:
    """The network, the slowed ones, ResNet-18."""
    size = (3, SIDE, SIDE)
    network = export_network(create_model("efficientnet_lite0").eval(), size)
    files = [folder / "whole.onnx"]
    onnx.save(network, files[0])
    for share in SLOWED:
        network.producer_name = f"{MARK}{share}"
        files.append(folder / f"slowed-{share}.onnx")
        onnx.save(network, files[-1])
    onnx.save(export_network(create_model("resnet18").eval(), size), folder / OTHER)
    return [*files, folder / OTHER]


def one(files: Sequence[Path], loops: int | str, number: int, rows: Rows) -> None:
    processor = describe_machine()["processor"]
    if rows.find(loops=loops, repeat=number, processor=processor):
        return
    began = time.monotonic()
    programs = [BURSTY] * 2 if loops == BURSTS else [BUSY] * int(loops)
    beside = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        result = bench(files)
    finally:
        for loop in beside:
            loop.kill()
            loop.wait()
    found = {
        row["model"]: {key: row[key] for key in ("ratio", "ratio_ci", "ratio_range", "verdict")}
        for row in result.rows[1:]
    }
    row = {
        "processor": processor,
        "loops": loops,
        "repeat": number,
        "noise": result["noise"],
        "models": found,
        "disturbed_share": result["disturbed_share"],
        "rounds": len(result.rows[0]["rounds_ms"]),
        "seconds": round(time.monotonic() - began, 1),
    }
    rows.keep(row)
    print(row, flush=True)


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each processor."""
    processors = dict.fromkeys(row["processor"] for row in rows)
    found = {name: of_processor([row for row in rows if row["processor"] == name]) for name in processors}
    return {name: of for name, of in found.items() if of["quiet_ratio"] is not None}


def of_processor(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    quiet = [row for row in rows if row["loops"] == QUIET]
    stated = [row["models"][OTHER]["ratio"] for row in quiet if row["models"][OTHER]["ratio"] is not None]
    truth = float(np.exp(np.log(stated).mean())) if stated else None
    same = [row["noise"] for row in quiet]
    found: dict[str, Any] = {
        "commits": sorted({row["commit"] for row in rows}),
        "repeats": len(quiet),
        "a_against_a": {
            "stated": sum(noise is not None for noise in same),
            "interval_holds_1": sum(
                noise is None or noise["ratio_ci"][0] <= 1 <= noise["ratio_ci"][1] for noise in same
            ),
            "within_5_pct": sum(abs(noise["ratio"] - 1) <= 0.05 for noise in same if noise),
            "largest_difference_pct": max((100 * abs(noise["ratio"] - 1) for noise in same if noise), default=None),
        },
        "quiet_ratio": truth,
        "quiet_ratio_range": [min(stated), max(stated)] if stated else None,
        "quiet_seconds": float(np.median([row["seconds"] for row in quiet])) if quiet else None,
        "beside": {},
    }
    for share in SLOWED:
        verdicts = [row["models"][f"slowed-{share}.onnx"]["verdict"] for row in quiet]
        found[f"slowed_by_{share:.0%}"] = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
    for loops in dict.fromkeys(row["loops"] for row in rows if row["loops"] != QUIET):
        of = [row["models"][OTHER] for row in rows if row["loops"] == loops]
        said = [one for one in of if one["ratio"] is not None]
        found["beside"][str(loops)] = {
            "repeats": len(of),
            "stated": len(said),
            "interval_holds_the_truth": sum(one["ratio_ci"][0] <= (truth or 0) <= one["ratio_ci"][1] for one in said),
            "contradicted": sum(one["verdict"] == "faster" for one in of) if (truth or 0) < 1 else None,
            "range_holds_the_truth": sum(
                one["ratio_range"][0] <= (truth or 0) <= one["ratio_range"][1] for one in of if one["ratio"] is None
            ),
        }
    return found


if __name__ == "__main__":
    sys.exit(main())
