"""Time the model.onnx beside this file on this machine: python bench.py [PHOTO...] [--threads N] [--out bench.json]

Needs onnxruntime and NumPy, for photos Pillow too; any Python from 3.9. `slimzoo report OUT --with bench.json` shows
what it writes. Eight processes are timed, one after the other: where a model lies in memory changes its speed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

MODEL, CPUS = Path(__file__).resolve().with_name("model.onnx"), Path("/proc/cpuinfo")
LAUNCHES, ROUNDS, SECONDS, RUNS = 8, 2, 0.2, 3  # processes; rounds of each, and their length; answers to each photo


def main() -> None:
    info = CPUS.read_text(encoding="utf-8", errors="replace") if CPUS.exists() else ""
    cores = set(re.findall(r"(?s)physical id\s*: (\d+).*?core id\s*: (\d+)", info))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="time the whole way from this photo to its answer")
    parser.add_argument("--threads", type=int, default=len(cores) or os.cpu_count(), help="by default one per core")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="where to write the result")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        if given.once:
            print(json.dumps(measure(given.photos, given.threads)))
            return
        given.out.touch()
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    command = [sys.executable, __file__, "--once", "--threads", str(given.threads), "--", *given.photos]
    found = []
    for _ in range(LAUNCHES):
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
        if done.returncode:
            sys.exit(done.returncode)  # it has said why
        found.append(json.loads(done.stdout.splitlines()[-1]))
    flags = set(re.findall(r"\b(?:avx2|avx512\w*|avx_vnni\w*|amx_\w+|asimd|asimddp|i8mm|bf16|sve2?)\b", info))
    named = re.findall(r"(?m)^(?:model name|Model)\s*: (.*)$", info) or [platform.processor() or platform.machine()]
    machine: dict[str, Any] = {"processor": named[0], "flags": sorted(flags), "system": platform.platform()}
    machine |= {"cores": len(cores) or os.cpu_count(), "threads": os.cpu_count()}
    row = joined(found, given.threads)
    versions = {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    settings: dict[str, Any] = {"threads": given.threads, "batch": 1, "rounds": LAUNCHES * ROUNDS, "launches": LAUNCHES}
    settings |= {"seconds_per_round": SECONDS, "inputs": "grey pixels of the network's size"}
    result = {"rows": [row], "noise": None, "machine": machine, "versions": versions, "settings": settings}
    given.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"network: {row['median_ms']:.3g} ms with {given.threads} threads, at most {row['peak_mb'] or 0:.0f} MB")
    for photo, parts in row["answers"].items():
        print(f"{photo}: {parts['whole_ms']:.3g} ms, of which decoding takes {parts['decode_ms']:.3g} ms")


def measure(photos: list[str], threads: int) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    began = time.perf_counter()
    session = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    load_ms = 1e3 * (time.perf_counter() - began)
    rule = json.loads(session.get_modelmeta().custom_metadata_map["slimzoo"])["preprocess"]
    own = np.full((*rule["size"], 3), 127, dtype=np.uint8)  # leaves nothing to prepare

    def run(pixels: Any) -> float:
        began = time.perf_counter()
        session.run(None, {"pixels": pixels[None]})
        return 1e3 * (time.perf_counter() - began)

    found: dict[str, Any] = {"load_ms": load_ms, "first_ms": run(own), "photos": {}}
    warm = [run(own) for _ in range(20)]
    while sum(warm) < 1e3 * SECONDS:
        warm.append(run(own))
    runs = max(1, round(1e3 * SECONDS / median(warm[-5:])))
    found["ms"] = [median(run(own) for _ in range(runs)) for _ in range(ROUNDS)]
    status = Path("/proc/self/status")  # Linux alone tells the peak of this program
    peak = re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="utf-8")) if status.exists() else None
    found["peak_mb"] = int(peak[1]) * 1024 / 1e6 if peak else None
    for photo in photos:
        from image import least_of, load_image  # which need Pillow

        rows, least = [], least_of(rule["size"], rule["resize_to"])
        for _ in range(RUNS + 1):  # the first warms up
            began = time.perf_counter()
            pixels = load_image(photo, background=tuple(rule["background"]), least=least)
            rows.append((1e3 * (time.perf_counter() - began), run(pixels), run(own)))
        decode_ms, file_ms, network_ms = (median(row[part] for row in rows[1:]) for part in range(3))
        parts = {"decode_ms": decode_ms, "prepare_ms": max(0.0, file_ms - network_ms), "network_ms": network_ms}
        found["photos"][Path(photo).name] = {**parts, "whole_ms": decode_ms + file_ms}
    return found


def joined(found: list[Any], threads: int) -> dict[str, Any]:
    content, rounds_ms = MODEL.read_bytes(), [ms for one in found for ms in one["ms"]]
    row: dict[str, Any] = {"model": MODEL.parent.parent.name, "sha256": hashlib.sha256(content).hexdigest()}
    row |= {"runtime": "onnxruntime", "device": "cpu", "precision": None, "batch": 1, "threads": threads}
    row |= {"median_ms": median(rounds_ms), "images_per_s": 1e3 / median(rounds_ms), "p90_ms": None, "p99_ms": None}
    row |= {key: median(one[key] for one in found) for key in ("load_ms", "first_ms")}
    row |= {"size_bytes": len(content), "peak_mb": max(one["peak_mb"] or 0 for one in found) or None, "reason": None}
    row |= {"rounds_ms": rounds_ms, "launches": [number for number, one in enumerate(found) for _ in one["ms"]]}
    row["answers"] = {
        photo: {part: median(one["photos"][photo][part] for one in found) for part in parts}
        for photo, parts in found[0]["photos"].items()
    }
    return row


if __name__ == "__main__":
    main()
