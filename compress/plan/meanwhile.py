"""What a search has found so far, to look at while it goes on: front.png and report.html in OUT.partial/.

Both are drawn from the trials alone, in less than a second; the report of the finished directory takes their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from compress.plan.settings import Budgets
from compress.plan.trial import BASE, HEADER, Trial, best_of
from compress.report.charts import Budget, Point, accuracy_chart, to_png
from compress.report.document import finished
from compress.report.figures import Cell
from compress.report.page import html
from compress.report.parts import Picture, Section, Table
from transfer.data.split import VAL
from zoo.disk import replace_text
from zoo.shell import pasteable

FRONT, REPORT = "front.png", "report.html"
AGAIN_S = 10  # after which a browser reads the report again
Role = Literal["baseline", "chosen", "variant"]


def show(trials: Sequence[Trial], budgets: Budgets, work: Path) -> None:
    """Write both into the directory in work."""
    out, chart, best = finished(work), _front(trials, budgets), best_of(trials, budgets)
    parts = list[Section]()
    if chart is not None:
        (work / FRONT).write_bytes(to_png(chart))
        parts.append(Section("Accuracy and size", picture=Picture(chart, FRONT)))
    rows = [[Cell(text) for text in trial.cells(budgets)] if trial.kept else _failed(trial) for trial in trials]
    marked = next((number for number, trial in enumerate(trials) if trial is best), None)
    parts.append(Section(f"{len(trials)} tried", table=Table(HEADER, rows, marked=marked, joined=True)))
    enough = "Stop the search with Ctrl-C where it runs; this makes a finished directory of the best so far:"
    parts.append(Section("Enough?", [enough], code=[pasteable(["slimzoo", "resume", str(out), "--finish"])]))
    said = "nothing that was tried meets the budget yet"
    if best is not None:
        said = f"the best so far is `{best.name}`, which takes of the budget {best.against(budgets)}"
    text = html(f"Compression of {out.name}, so far", f"The search goes on; {said}.", parts, again_s=AGAIN_S)
    replace_text(work / REPORT, text.encode(errors="backslashreplace").decode())


def _failed(trial: Trial) -> list[Cell]:
    return [Cell(trial.name), Cell(trial.reason, columns=len(HEADER) - 1)]


def _front(trials: Sequence[Trial], budgets: Budgets) -> Any | None:
    """Accuracy over bytes of the models that were tried, the best so far marked; None before there is one."""
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
    return accuracy_chart(points, cost_title="size, MB", top1_title="top-1 on validation, %", budget=least)
