"""What a search has found, written: the chosen model, all that were tried, how they compare, and the plan."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.deployment.onnx_result import run_without_slimzoo
from compress.plan.losses import images_needed
from compress.plan.plan import Plan, PlannedStep
from compress.plan.searching import Search
from compress.plan.settings import Compress
from compress.plan.side_by_side import kept_of
from compress.plan.timing import RUNTIMES
from compress.plan.trial import BASE, NAMES, Trial, best_of, nearest_of
from compress.report.report import Report, build_report
from compress.report.searched import VARIANTS
from zoo.disk import write_json
from zoo.files.manifest import CHECKPOINTS, TRIALS
from zoo.files.model_directory import read_config

MODEL, PLAN = "model", "plan.yaml"


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        search: that is over.
        fitted: the step that made the first of its trials, where that was done here.
        data: the images.
    """

    search: Search
    fitted: PlannedStep | None
    data: str

    @property
    def settings(self) -> Compress:
        return self.search.settings


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """
    Attributes:
        out: the directory that was made.
        met: whether a model meets the budgets, which is then `out`/model.
        chosen: its name among the variants.
        runtime: in which it is fastest.
        record: {"baseline", "chosen", "variants", "budgets", "met"}.
        report: see `Report`.
    """

    out: Path
    met: bool
    chosen: str | None
    runtime: str | None
    record: dict[str, Any]
    report: Report
    said: Sequence[str]

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.met else 4

    def lines(self) -> list[str]:
        return [self.report.verdict, *self.said, f"Report: {self.out / 'report.html'}"]

    def lost(self) -> list[str]:
        return []

    def in_short(self) -> list[str]:
        return [f"{self.out}: {self.report.verdict}", *self.said]

    def next(self) -> list[list[str | Path]]:
        if not self.met:
            return [["slimzoo", "report", self.out]]
        model = self.out / MODEL
        runtime = [] if self.runtime in (None, RUNTIMES[0]) else ["--runtime", str(self.runtime)]  # None: not timed
        deployed = run_without_slimzoo(str(model), read_config(model))
        return [*([*words, *runtime] for words in deployed), ["slimzoo", "predict", model, "IMAGE"]]


def deliver(outcome: Outcome, work: Path, out: Path) -> Compressed:
    """Fill the directory in work, which becomes `out`, and in which variants lie already."""
    search, budgets = outcome.search, outcome.settings.budgets
    trials, kept = search.trials, kept_of(search.trials)
    chosen = best_of([trial for trial in trials if trial.name in kept], budgets)
    record: dict[str, Any] = {
        "baseline": BASE,
        "chosen": None if chosen is None else chosen.name,
        "runtime": None if chosen is None else chosen.runtime,
        "variants": [trial.document(budgets) for trial in trials],
        "budgets": budgets.record(),
        "met": chosen is not None,
    }
    write_json(work / TRIALS, record)
    report = build_report(work)
    shutil.rmtree(work / MODEL, ignore_errors=True)  # of a run that was interrupted here
    if chosen is not None:
        shutil.copytree(work / VARIANTS / chosen.name, work / MODEL)
        (work / PLAN).write_text(_plan(outcome, chosen).text(_command(outcome, PLAN)), encoding="utf-8")
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    gone = [trial.name for trial in trials if trial.kept is not None and trial.name not in kept]
    said = [f"made by a worker whose steps are not kept here, and left out: {', '.join(gone)}"] if gone else []
    said += [] if search.target is None else [search.target.said()]
    said = [*dict.fromkeys(search.said), *said, *_said(trials, chosen, outcome)]
    return Compressed(
        out=out,
        met=chosen is not None,
        chosen=record["chosen"],
        runtime=record["runtime"],
        record=record,
        report=report,
        said=said,
    )


def _plan(outcome: Outcome, chosen: Trial) -> Plan:
    fitted = () if outcome.fitted is None else (outcome.fitted,)
    steps = chosen.plan.steps if chosen.plan is not None else ()
    return Plan((*fitted, *steps))


def _command(outcome: Outcome, plan: str) -> str:
    source = outcome.data if outcome.fitted is not None else "DIR"
    data = [] if outcome.fitted is not None else ["--data", outcome.data]
    return shlex.join(["slimzoo", "compress", source, *data, "--plan", plan, "--out", "OUT"])


def _said(trials: Sequence[Trial], chosen: Trial | None, outcome: Outcome) -> list[str]:
    """How sure the promise is, and, where nothing meets the budgets, what came nearest."""
    budgets = outcome.settings.budgets
    if chosen is None:
        nearest = nearest_of(trials, budgets)
        if nearest is None:
            return ["nothing that was tried came out" if len(trials) > 1 else "nothing was tried"]
        over = nearest.over(budgets)
        takes = [f"{times:.2g} times the {NAMES[name]}" for name, times in over.items() if not math.isinf(times)]
        unknown = [f"its {NAMES[name]} is not known" for name, times in over.items() if math.isinf(times)]
        parts = [f"is expected to lose {nearest.lost:.1f} points where {budgets.max_drop:g} may be lost"]
        parts += [f"takes {', '.join(takes)} allowed"] if takes else []
        return [f"no model meets the budget; the nearest is {nearest.name}, which {' and '.join(parts)}", *unknown]
    if chosen.drop is None or chosen.name == BASE:
        return []
    needed, most = images_needed(budgets.max_drop, chosen.drop), chosen.drop.ci_points[1]
    said = f"{chosen.name} is expected to lose {chosen.lost:.1f} points; on {chosen.drop.n} validation images it lost "
    said += f"{chosen.drop.points:.1f}, at most {most:.1f} (95%)"
    if needed > chosen.drop.n:
        said += f"; to see a loss of {budgets.max_drop:g} it would take about {needed:,}"
    return [said]
