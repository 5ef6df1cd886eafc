"""The report's tables of what was timed: by runtime, and from a photo to its answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from compress.report.crossover import crossovers
from compress.report.figures import Cell, megabytes, milliseconds, quoted, three
from compress.report.parts import Table

PARTS = ("decode_ms", "prepare_ms", "network_ms", "whole_ms")


def bench_table(rows: Iterable[dict[str, Any]]) -> Table:
    head = [
        "model",
        "runtime",
        "device",
        "precision",
        "median",
        "p90",
        "p99",
        "images/s",
        "memory",
        "loading",
        "first run",
    ]
    body = []
    for row in rows:
        name = [
            Cell(quoted(row["model"])),
            Cell(row["runtime"]),
            Cell(row["device"] or ""),
            Cell(row["precision"] or "", [f"batch {row['batch']}"] if row.get("batch", 1) > 1 else []),
        ]
        if row["reason"] is not None:
            body.append([*name, Cell(row["reason"], columns=len(head) - len(name))])
            continue
        times_ms = [row[key] for key in ("median_ms", "p90_ms", "p99_ms")]
        peak_bytes = None if row["peak_mb"] is None else 1e6 * row["peak_mb"]
        own = row.get("device_peak_mb")  # of a device that has a memory of its own
        spent = row.get("joules_per_image")
        rest = [Cell(three(row["images_per_s"]), [] if spent is None else [f"{three(spent)} J an image"])]
        rest += [Cell(megabytes(peak_bytes))]
        rest += [Cell(milliseconds(row.get(key))) for key in ("load_ms", "first_ms")]
        between = row.get("median_ci_ms")
        notes = [f"{three(between[0])} to {three(between[1])}"] if between else []
        if own is not None:
            rest[1] = Cell(rest[1].text, [f"{megabytes(1e6 * own)} on the device"])
            notes += [f"{milliseconds(row.get('device_ms'))} on the device"]
        body.append([*name, Cell(milliseconds(times_ms[0]), notes), *(Cell(milliseconds(ms)) for ms in times_ms[1:])])
        body[-1] += rest
    return Table(head, body, words=4)


def crossover_table(rows: Sequence[dict[str, Any]], price_cpu: float | None, price_gpu: float | None) -> Table:
    """CPU against GPU at each batch size, the fastest row of either, and what a million images cost there."""
    head = ["model", "batch", "CPU", "images/s", "GPU", "images/s"]
    priced = price_cpu is not None or price_gpu is not None
    head += ["a million on the CPU", "on the GPU"] if priced else []
    body = []
    for found in crossovers(rows, price_cpu=price_cpu, price_gpu=price_gpu):
        for one in found["batches"]:
            cells = [Cell(quoted(found["model"])), Cell(str(one["batch"]))]
            for side in (one["cpu"], one["gpu"]):
                cells += [Cell(side["runtime"], [side["precision"] or ""]), Cell(three(side["images_per_s"]))]
            cells += [Cell(three(one[device]["million"])) for device in ("cpu", "gpu") if priced]
            body.append(cells)
        body.append([Cell(f"{found['verdict']}.", columns=len(head))])
    return Table(head, body, words=1)


def answers_table(rows: Iterable[dict[str, Any]]) -> Table:
    """From a photo to its answer, of each model that takes photos."""
    head = ["model", "photo", "decoding", "preparing", "network", "whole", "the network's share", "speed-up"]
    body = []
    for row in rows:
        for photo, found in (row.get("answers") or {}).items():
            speed = Cell("")
            if found["ratio"] is not None:
                lo, hi = found["ratio_ci"]
                speed = Cell(f"{found['ratio']:.2f}x", [f"{lo:.2f} to {hi:.2f}", found["verdict"] or ""])
            elif found["verdict"] is not None:
                speed = Cell("", [found["verdict"]])
            name = [Cell(quoted(row["model"])), Cell(photo)]
            share = f"{found['network_ms'] / found['whole_ms']:.0%}"
            body.append([*name, *(Cell(milliseconds(found[part])) for part in PARTS), Cell(share), speed])
    return Table(head, body, words=2)
