"""Numbers as people read them; a missing one is a dash. Changes are after minus before, so a loss has a minus sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.report.statistics import Ratio
from transfer.evaluation.statistics import PairedDrop

MISSING = "–"
MINUS = "−"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a figure, and in small letters how sure it is. `Names` in backquotes are set as code."""

    text: str
    notes: Sequence[str] = ()
    columns: int = 1  # that it spans


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f}%"


def signed(points: float) -> str:
    """A change in percentage points: "+0.3", "−1.2", "0.0"."""
    text = f"{points:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def change(points_lost: float | None, paired: PairedDrop | None) -> Cell:
    if points_lost is None:
        return Cell(MISSING)
    if paired is None:
        return Cell(signed(-points_lost), ["not paired"])
    lo, hi = paired.ci_points
    p = "p < 0.001" if paired.mcnemar_p < 0.001 else f"p = {paired.mcnemar_p:.2g}"
    flips = f"{paired.flips} {'flip' if paired.flips == 1 else 'flips'}"
    return Cell(signed(-points_lost), [f"{signed(-hi)} to {signed(-lo)}", f"{p}, {flips}"])


def count(number: float | None) -> str:
    """Three digits and a unit: 3.41 M."""
    if number is None:
        return MISSING
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return three(number / size) + unit
    return f"{number:.0f}"


def decibels(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f} dB"


def megabytes(size_bytes: float | None) -> str:
    """1 MB = 1e6 bytes."""
    if size_bytes is None:
        return MISSING
    return f"{three(size_bytes / 1e3)} kB" if size_bytes < 1e6 else f"{three(size_bytes / 1e6)} MB"


def milliseconds(ms: float | None) -> str:
    return MISSING if ms is None else f"{three(ms)} ms"


def three(number: float | None) -> str:
    """Three significant digits, zeros too, never as a power of ten."""
    if number is None:
        return MISSING
    return f"{number:.0f}" if abs(number) >= 99.95 else f"{number:#.3g}"


def times(factor: float) -> str:
    return f"{factor:.0f}x" if factor >= 10 else f"{factor:.2g}x" if factor >= 3 else f"{factor:.2f}x"


def interval(ratio: Ratio) -> str:
    return f"{ratio.lo:.2f} to {ratio.hi:.2f}"


def arguments(record: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in record.items() if value is not None)


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def quoted(name: str) -> str:
    """A name to be set as code."""
    return "`" + name.replace("`", "'").replace("\n", " ") + "`"
