"""What a benchmark found: a mapping, ready for JSON, that reads as a table."""

from __future__ import annotations

import html
from typing import Any


class Benchmark(dict[str, Any]):
    """What `bench` returns, which see."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One for each model and runtime, in the order of the models."""
        found: list[dict[str, Any]] = self["rows"]
        return found

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
        table.append([row["model"], row["runtime"], row["precision"], *cells, speed_up, verdict])
    lines = []
    if len(table) > 1:
        widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
        for cells in table:
            aligned = (
                c.rjust(w) if 3 <= i < 9 else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            )
            lines.append("  ".join(aligned).rstrip())
    lines += unmeasured
    if (noise := result["noise"]) is not None:
        lo, hi = noise["ratio_ci"]
        lines.append(
            f"Two copies of one model differ by {lo:.2f} to {hi:.2f} here: "
            f"a difference within {noise['floor_pct']:.1f}% is called a tie."
        )
    lines += [f"{text[0].upper()}{text[1:]}." for text in result["diagnoses"]]
    return "\n".join(lines)
