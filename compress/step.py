"""What a command of compression leaves behind, as a Python caller sees it, and whether it cost too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.data.split import TEST, VAL
from zoo.files.model_directory import ModelConfig

LARGE_LOSS = 5.0  # points of accuracy that are told by themselves
ROUNDING = 1e-9  # of shares of right answers


@dataclass(frozen=True)
class Step:
    out: Path
    config: ModelConfig
    record: dict[str, Any]  # of this step, the last of the config's lineage


def large_loss(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], advice: str, *, than: str = "before"
) -> dict[str, Any] | None:
    """For a step's record: that it lost more than 5 points on validation images, or on test ones where there are none.

    Args:
        before, after: metrics.
        advice: what to do then.
        than: what `before` is of.
    """
    part = next((part for part in (VAL, TEST) if part in (before or {}) and part in after), None)
    if before is None or part is None:
        return None
    points = 100 * (before[part]["top1"] - after[part]["top1"])
    if points <= LARGE_LOSS + ROUNDING:
        return None
    return {"part": part, "points": round(points, 2), "than": than, "advice": advice}
