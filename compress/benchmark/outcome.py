"""What came out of a benchmark: its rows as JSON, how noisy the machine was, and what disturbed it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from compress.benchmark.answer import PARTS
from compress.benchmark.diagnosis import diagnoses, launch_bound
from compress.benchmark.machine import cpus_for
from compress.benchmark.rows import Row, compared
from compress.benchmark.runtimes import TORCH_CUDA
from compress.report.statistics import (
    DISTURBED,
    SAMPLES_FOR_P90,
    SAMPLES_FOR_P99,
    Ratio,
    TooBusy,
    enough,
    median_interval,
    speed_up,
    undisturbed,
    verdict_of,
)
from zoo.disk import sha256


def outcome(
    rows: Sequence[Row], reference: Row | None, twin: Row | None, batch: int, threads: int, asked: int
) -> dict[str, Any]:
    """`rows`, `reference`, `noise`, `disturbed_share` and `diagnoses` of `bench`, which see."""
    base = reference if reference is not None and reference.rounds else None
    found = compared(base, twin, asked) if base is not None and twin is not None else None
    noise = found if isinstance(found, Ratio) else None
    measured = [row for row in [*rows, *([twin] if twin is not None else [])] if row.rounds]
    shares = np.array([share for row in measured for share in row.taken])
    quiet = [] if base is None else [base.rounds_ms[number] for number in undisturbed(base.taken)]
    records = [_record(row, base, noise, batch, threads, asked) for row in rows]
    busy = diagnoses([row.taken for row in measured], quiet, threads, len(cpus_for(10**6)))
    return {
        "rows": records,
        "reference": None if base is None else {"model": base.model, "runtime": base.runtime},
        "noise": noise and {"ratio": noise.value, "ratio_ci": [noise.lo, noise.hi], "floor_pct": noise.floor_pct},
        "disturbed_share": round(float((shares > DISTURBED).mean()), 4) if shares.size else None,
        "diagnoses": [*busy, *launch_bound(records)],
    }


def _record(row: Row, base: Row | None, noise: Ratio | None, batch: int, threads: int, asked: int) -> dict[str, Any]:
    """One row of the result; see `bench`."""
    clean = undisturbed(row.taken)
    quiet = enough(clean, asked)
    counted = clean if quiet else range(len(row.rounds))
    interval = median_interval([row.rounds_ms[i] for i in counted], [row.launches[i] for i in counted])
    ms = np.array([run for number in counted for run in row.rounds[number]])
    device_ms = [run for number in counted for run in row.device_rounds[number]]
    busy_ms = statistics.median(device_ms) if device_ms else None
    joules = [each for number in clean if (each := row.joules[number]) is not None] if quiet else []
    n, median = ms.size, float(np.median(ms)) if ms.size else None
    found = compared(base, row, asked) if base is not None else None
    ratio = found if isinstance(found, Ratio) else None
    verdict = verdict_of(found, noise.floor_pct if noise else None)
    return {
        "model": row.model,
        "runtime": row.runtime,
        "device": row.opened.get("device", "cuda" if row.runtime in TORCH_CUDA else "cpu"),
        "precision": row.opened.get("precision", row.precision),
        "batch": batch,
        "threads": threads,
        "median_ms": median,
        "p90_ms": float(np.quantile(ms, 0.9)) if n >= SAMPLES_FOR_P90 else None,
        "p99_ms": float(np.quantile(ms, 0.99)) if n >= SAMPLES_FOR_P99 else None,
        "images_per_s": 1000 * batch / median if median else None,
        "peak_mb": row.peak_bytes / 1e6 if row.peak_bytes and n else None,
        "size_bytes": row.file.stat().st_size if row.file and row.file.is_file() else None,
        "reason": None if row.reason is None else f"not measured: {row.reason}",
        "sha256": sha256(row.file) if row.file and row.file.is_file() else None,
        "samples": n,
        "device_ms": busy_ms,
        "transfer_ms": None if busy_ms is None or median is None else max(0.0, median - busy_ms),
        "device_peak_mb": row.device_peak_bytes / 1e6 if row.device_peak_bytes and n else None,
        "median_ci_ms": interval and list(interval),
        "disturbed": bool(n) and not quiet,
        "joules_per_image": statistics.median(joules) / batch if joules else None,
        "load_ms": row.opened.get("load_ms"),
        "first_ms": row.opened.get("first_ms"),
        "cpus": row.opened.get("cpus"),
        "rounds_ms": row.rounds_ms,
        "taken": row.taken,
        "launches": row.launches,
        "answers": {name: _answer(name, row, base, noise) for name in row.answers} or None,
        "answer_mb": row.answer_bytes / 1e6 if row.answer_bytes else None,
        "ratio": ratio and ratio.value,
        "ratio_ci": ratio and [ratio.lo, ratio.hi],
        "ratio_range": [found.lo, found.hi] if isinstance(found, TooBusy) else None,
        "verdict": "reference" if row is base and n else verdict,
    }


def _answer(name: str, row: Row, base: Row | None, noise: Ratio | None) -> dict[str, Any]:
    """Of one photo, its parts and how much sooner the whole of them is there than the reference's."""
    found = row.answers[name]
    clean = [found[number] for number in undisturbed([one["taken"] for one in found])] or found
    old, new = (
        {"rounds_ms": [one["whole_ms"] for one in answers], "taken": [one["taken"] for one in answers]}
        for answers in (base.answers.get(name, []) if base is not None else [], found)
    )
    said = speed_up(old, new, len(found)) if row is not base else None
    ratio = said if isinstance(said, Ratio) else None
    return {
        **{part: statistics.median(one[part] for one in clean) for part in PARTS},
        "ratio": ratio and ratio.value,
        "ratio_ci": ratio and [ratio.lo, ratio.hi],
        "verdict": verdict_of(said, noise.floor_pct if noise else None),
        "launches_ms": new["rounds_ms"],
        "taken": new["taken"],
    }
