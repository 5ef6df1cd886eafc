"""What a benchmark found: a mapping, ready for JSON, that reads as a table."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.benchmark.answer import PARTS
from zoo.disk import replace_text


class Benchmark(dict[str, Any]):
    """What `bench` returns, which see."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each model and runtime, in the order of the models."""
        found: list[dict[str, Any]] = self["rows"]
        return found

    def write(self, file: Path) -> None:
        """Write it as JSON, whole or not at all."""
        replace_text(file, json.dumps(self, indent=1) + "\n")

    def __str__(self) -> str:
        return format_rows(self)

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"


def format_rows(result: dict[str, Any]) -> str:
    """The rows as a table for a terminal, the rows without numbers under it, then the noise of the
    machine and what disturbed it."""
    head = [
        "model",
        "runtime",
        "precision",
        "median ms",
        "p90",
        "p99",
        "images/s",
        "memory MB",
        "file MB",
        "speed-up",
        "",
    ]
    several = len({row["batch"] for row in result["rows"]}) > 1
    table, unmeasured = [head], []
    for row in result["rows"]:
        if row["reason"] is not None:
            unmeasured.append(f"{row['model']} in {row['runtime']}: {row['reason']}")
            continue
        speed_up = ""
        if row["verdict"] != "reference" and row["ratio"] is not None:
            lo, hi = row["ratio_ci"]
            speed_up = f"{row['ratio']:.2f}x ({lo:.2f} to {hi:.2f})"
        elif row["ratio_range"] is not None:
            lo, hi = row["ratio_range"]
            speed_up = f"{lo:.2g} to {hi:.2g} times"
        size_mb = None if row["size_bytes"] is None else row["size_bytes"] / 1e6
        numbers = [row["median_ms"], row["p90_ms"], row["p99_ms"], row["images_per_s"], row["peak_mb"], size_mb]
        cells = ["" if number is None else f"{number:.4g}" for number in numbers]
        verdict = row["verdict"] or ""
        if row["disturbed"] and verdict == "reference":
            verdict += ", disturbed"
        precision = f"{row['precision']}, batch {row['batch']}" if several else row["precision"]
        table.append([row["model"], row["runtime"], precision, *cells, speed_up, verdict])
    lines = _aligned(table, words=(0, 1, 2, 9, 10)) if len(table) > 1 else []
    lines += unmeasured
    lines += _on_devices(result["rows"])
    lines += _energy(result["rows"])
    lines += [f"{found['model']}: {found['verdict']}." for found in result["crossovers"]]
    lines += _answers(result["rows"])
    if (noise := result["noise"]) is not None:
        lo, hi = noise["ratio_ci"]
        lines.append(
            f"Two copies of one model differ by {lo:.2f} to {hi:.2f} here: "
            f"a difference within {noise['floor_pct']:.1f}% is called a tie."
        )
    lines += [f"{text[0].upper()}{text[1:]}." for text in result["diagnoses"]]
    return "\n".join(lines)


def _on_devices(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of rows on a device of its own, how long it worked, and how long the way there and back took."""
    return [
        f"{row['model']} in {row['runtime']} ({row['precision']}, batch {row['batch']}): {row['device_ms']:.3g} ms on "
        f"the device, {row['transfer_ms']:.3g} ms to it and back; at most {row['device_peak_mb']:.4g} MB of its memory"
        for row in rows
        if row.get("device_peak_mb") is not None and row.get("device_ms") is not None
    ]


def _energy(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{row['model']} in {row['runtime']} ({row['precision']}, batch {row['batch']}): {joules:.3g} J an image, of "
        "the processor and all that ran on it"
        for row in rows
        if (joules := row.get("joules_per_image")) is not None
    ]


def _answers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """From photo to answer, for each model and photo, and what a faster network is worth there."""
    table, worth = [["model", "photo", "decode ms", "prepare", "network", "whole", "speed-up", ""]], []
    for row in rows:
        for photo, found in (row["answers"] or {}).items():
            speed = ""
            if found["ratio"] is not None:
                lo, hi = found["ratio_ci"]
                speed = f"{found['ratio']:.2f}x ({lo:.2f} to {hi:.2f})"
                if row["ratio"] is not None:
                    worth.append(
                        f"{row['model']}: the network is {row['ratio']:.2f}x as fast, the answer to {photo} "
                        f"{found['ratio']:.2f}x; the network is {found['network_ms'] / found['whole_ms']:.0%} of it."
                    )
            table.append(
                [row["model"], photo, *(f"{found[part]:.4g}" for part in PARTS), speed, found["verdict"] or ""]
            )
    if len(table) == 1:
        return []
    return ["", "From photo to answer:", *_aligned(table, words=(0, 1, 6, 7)), *worth, ""]


def _aligned(table: Sequence[Sequence[str]], words: Sequence[int]) -> list[str]:
    """Lines of a table, the columns of words to the left and those of numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        pairs = enumerate(zip(cells, widths, strict=True))
        lines.append("  ".join(c.ljust(w) if i in words else c.rjust(w) for i, (c, w) in pairs).rstrip())
    return lines
