"""Is what `slimzoo bench` measures what others measure of the same file, and what does the measuring itself cost?

    pip install openvino
    python benchmarks/bench_bare.py [--repeats 4]

EfficientNet-Lite0 at 96 px and ResNet-18 at 224 px, random weights, batch 1, a thread for each core. Of each the
medians are taken one after the other, in turns whose order is reversed every second time:

ours: `slimzoo bench FILE` with its defaults, onnxruntime and OpenVINO.
bare: twelve lines of Python with onnxruntime in a process of their own, for as many seconds of runs as ours.
deploy: deploy/bench.py of the exported model, in a process of its own, the file's preprocessing included.
benchmark_app: OpenVINO's own, its hint for latency, one stream, as many threads, float32.

A process lies in memory as it happens, which makes it up to a tenth faster or slower for as long as it lives: what is
compared are the medians over as many processes of each. The cost of measuring is what a request to a worker takes
beyond the runs that it times; and how long ResNet-18 over torch, onnxruntime and OpenVINO takes until the intervals of
all are within 5% is measured on its own.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from record import write_result

from compress import bench, export
from compress.benchmark.machine import default_threads
from compress.benchmark.worker import UNMEASURED, Worker
from compress.graph.network import export_network
from zoo.create import create_model
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, save_model
from zoo.preprocess import Preprocess

NETWORKS = (("efficientnet_lite0", 96), ("resnet18", 224))
SECONDS = 2.0  # of a bare loop
CLOSE = 0.05
BARE = """
import statistics, sys, time
import numpy as np, onnxruntime
path, side, threads, seconds = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
name, x = session.get_inputs()[0].name, np.random.default_rng(0).standard_normal((1, 3, side, side), dtype=np.float32)
taken, end = [], time.perf_counter() + 1 + seconds
while (began := time.perf_counter()) < end:
    session.run(None, {name: x})
    taken.append((began, time.perf_counter() - began))
print(1e3 * statistics.median(spent for began, spent in taken if began > end - seconds))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: compared(name, side, Path(folder), given.repeats) for name, side in NETWORKS}
        own_cost = {name: cost_pct(Path(folder, f"{name}.onnx")) for name, _ in NETWORKS}
        three = three_runtimes(Path(folder, "resnet18"))
    figures = {"repeats": given.repeats, "networks": found, "own_cost_pct": own_cost, "three_runtimes": three}
    print(write_result("bare", figures, "python benchmarks/bench_bare.py"))
    return 0


def compared(name: str, side: int, folder: Path, repeats: int) -> dict[str, Any]:
    model = create_model(name, num_classes=10).eval()
    config = ModelConfig(
        architecture=name,
        model_args={"num_classes": 10},
        classes=tuple("abcdefghij"),
        preprocess=Preprocess(size=(side, side)),
    )
    directory, file = folder / name, folder / f"{name}.onnx"
    with new_directory(directory, run={}) as work:
        save_model(work, model, config)
    export(directory)
    onnx.save(export_network(model, (3, side, side)), file)
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "ours": lambda: ours(file),
        "bare": lambda: {"bare": bare(file, side)},
        "deploy": lambda: {"deploy": deployed(directory, folder)},
        "benchmark_app": lambda: {"benchmark_app": benchmark_app(file, side, folder)},
    }
    rows: list[dict[str, float]] = []
    for number in range(repeats):
        order = list(ways)[:: -1 if number % 2 else 1]
        rows.append({key: ms for way in order for key, ms in ways[way]().items()})
        print(name, rows[-1], flush=True)
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    pairs = (("bare", "onnxruntime"), ("deploy", "onnxruntime"), ("benchmark_app", "openvino"))
    ratios = {
        peer: {
            "ours_over_it": medians[own] / medians[peer],
            "range": [least(row[own] / row[peer] for row in rows) for least in (min, max)],
            "it_against_itself": [least(row[peer] for row in rows) / medians[peer] for least in (min, max)],
        }
        for peer, own in pairs
    }
    return {"side": side, "median_ms": medians, "ratios": ratios, "rows": rows}


def ours(file: Path) -> dict[str, float]:
    found = bench([file], runtimes=["onnxruntime", "openvino"])
    return {row["runtime"]: row["median_ms"] for row in found["rows"]}


def bare(file: Path, side: int) -> float:
    words = [str(file), str(side), str(default_threads()), str(SECONDS)]
    return float(_output([sys.executable, "-c", BARE, *words]))


def deployed(directory: Path, folder: Path) -> float:
    out = folder / "there.json"
    threads = ["--threads", str(default_threads())]
    _output([sys.executable, str(directory / "deploy" / "bench.py"), *threads, "--out", str(out)])
    return float(json.loads(out.read_text(encoding="utf-8"))["rows"][0]["median_ms"])


def benchmark_app(file: Path, side: int, folder: Path) -> float:
    settings = {"INFERENCE_NUM_THREADS": default_threads(), "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    given = folder / "openvino.json"
    given.write_text(json.dumps({"CPU": settings}), encoding="utf-8")
    words = ["-m", file, "-d", "CPU", "-api", "sync", "-hint", "latency", "-load_config", given]
    words += ["-t", round(SECONDS), "-data_shape", f"[1,3,{side},{side}]"]
    said = _output([str(Path(sys.executable).with_name("benchmark_app")), *map(str, words)])
    value, unit = re.findall(r"Median: +([\d.]+) (us|ms|s)\b", said)[0]
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def _output(command: list[str]) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    return done.stdout.strip().splitlines()[-1] if command[1] == "-c" else done.stdout


def cost_pct(file: Path, requests: int = 5, runs: int = 200) -> float:
    """What a request takes beyond the runs that it times, and those before it that fill the caches, in percent."""
    worker, found = Worker(), []
    worker.open(runtime="onnxruntime", path=str(file), threads=default_threads(), batch=1, precision="fp32")
    worker.warm_up(seconds=1.0)
    for _ in range(requests):
        began = time.perf_counter()
        ms = worker.measure(runs=runs)["ms"]
        spent = 1e3 * (time.perf_counter() - began) - UNMEASURED * statistics.median(ms)
        found.append(100 * (spent / sum(ms) - 1))
    return statistics.median(found)


def three_runtimes(directory: Path) -> dict[str, Any]:
    began = time.monotonic()
    found = bench([directory], runtimes=["onnxruntime", "openvino", "torch"])
    intervals = {row["runtime"]: row["ratio_ci"] for row in found["rows"] if row["ratio_ci"]}
    return {
        "seconds": round(time.monotonic() - began, 1),
        "interval_pct": {name: 50 * (hi - lo) / ((hi + lo) / 2) for name, (lo, hi) in intervals.items()},
        "noise": found["noise"],
        "diagnoses": found["diagnoses"],
    }


if __name__ == "__main__":
    sys.exit(main())
