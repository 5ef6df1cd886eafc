"""The report's tables of what was timed: by runtime, and from a photo to its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compress.report.figures import Cell, megabytes, milliseconds, three
from compress.report.sections import Table, quoted

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
            Cell(row["precision"] or ""),
        ]
        if row["reason"] is not None:
            body.append([*name, Cell(row["reason"], columns=len(head) - len(name))])
            continue
        times_ms = [row[key] for key in ("median_ms", "p90_ms", "p99_ms")]
        peak_bytes = None if row["peak_mb"] is None else 1e6 * row["peak_mb"]
        rest = [three(row["images_per_s"]), megabytes(peak_bytes)]
        rest += [milliseconds(row.get(key)) for key in ("load_ms", "first_ms")]
        body.append([*name, *(Cell(milliseconds(ms)) for ms in times_ms), *map(Cell, rest)])
    return Table(head, body, words=4)


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
