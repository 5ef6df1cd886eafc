"""The front while the search goes on: accuracy over bytes, as a picture in OUT.partial/ that can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from compress.plan.settings import Budgets
from compress.plan.trial import BASE, Trial, best_of
from compress.report.charts import Budget, Point, accuracy_chart, to_png
from transfer.data.split import VAL

FRONT = "front.png"
Role = Literal["baseline", "chosen", "variant"]


def front_so_far(trials: Sequence[Trial], budgets: Budgets) -> bytes | None:
    """A PNG of the models that were tried, the best so far marked; None before there is one."""
    best, points = best_of(trials, budgets), list[Point]()
    for number, trial in enumerate(trials):
        found, size = (trial.metrics or {}).get(VAL), trial.costs["size_bytes"]
        if not found or not size:
            continue
        lo, hi = found["top1_ci"]
        role: Role = "baseline" if trial.name == BASE else "chosen" if trial is best else "variant"
        points.append(Point(trial.name, found["top1"], (lo, hi), size / 1e6, int(size), role, number))
    if not points:
        return None
    least = Budget(points[0].top1 - budgets.max_drop / 100, f"{budgets.max_drop:g} points below {points[0].name}")
    chart = accuracy_chart(points, cost_title="size, MB", top1_title="top-1 on validation, %", budget=least)
    return to_png(chart)
