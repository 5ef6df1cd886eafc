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
from compress.plan.meanwhile import FRONT
from compress.plan.plan import Plan, PlannedStep
from compress.plan.searching import Search
from compress.plan.settings import Compress
from compress.plan.side_by_side import kept_of
from compress.plan.timing import RUNTIMES
from compress.plan.trial import BASE, NAMES, Trial, best_of, nearest_of, widths_of
from compress.report.figures import megabytes, milliseconds, quoted
from compress.report.report import Report, build_report
from compress.report.searched import VARIANTS
from zoo.disk import write_json
from zoo.files.manifest import TRIALS
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
        met: whether a model meets the budgets, and every gate of a plan, which is then `out`/model.
        chosen: its name among the variants.
        runtime: in which it is fastest.
        record: {"baseline", "chosen", "runtime", "variants", "budgets", "met", "why", "elsewhere"}.
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
    there = [trial for trial in trials if trial.name in kept]
    there = [trial for trial in there if trial.candidate is None] or there  # a plan is followed for what it makes
    stopped = next((trial for trial in trials if trial.candidate is None and trial.reason), None)  # of a plan
    chosen = None if stopped is not None else best_of(there, budgets)
    record: dict[str, Any] = {
        "baseline": BASE,
        "chosen": None if chosen is None else chosen.name,
        "runtime": None if chosen is None else chosen.runtime,
        "variants": [trial.document(budgets) for trial in trials],
        "budgets": budgets.record(),
        "met": chosen is not None,
        "why": _why_none(there, stopped, outcome) if chosen is None else _why(chosen, there, outcome),
        "elsewhere": None if search.target is None else search.target.machine,
    }
    write_json(work / TRIALS, record)
    report = build_report(work)
    shutil.rmtree(work / MODEL, ignore_errors=True)  # of a run that was interrupted here
    if chosen is not None:
        shutil.copytree(work / VARIANTS / chosen.name, work / MODEL)
        (work / PLAN).write_text(_plan(outcome, chosen).text(_command(outcome, PLAN)), encoding="utf-8")
    (work / FRONT).unlink(missing_ok=True)  # as it was meanwhile; the report has its own
    gone = [trial.name for trial in trials if trial.kept is not None and trial.name not in kept]
    said = [f"made by a worker whose steps are not kept here, and left out: {', '.join(gone)}"] if gone else []
    said += [] if search.target is None else [search.target.said()]
    said = [*dict.fromkeys(search.said), *said, *_said(chosen or nearest_of(there, budgets), outcome)]
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
    given = outcome.settings.beside_a_plan()
    return shlex.join(["slimzoo", "compress", source, *data, "--plan", plan, *given, "--out", "OUT"])


def _why(chosen: Trial, there: Sequence[Trial], outcome: Outcome) -> str:
    """Why this one, and what would be taken instead of it, in a sentence; nothing where there is no other."""
    budgets = outcome.settings.budgets
    meeting = [t for t in there if t.meets(budgets) and (budgets.costs or t.name != BASE)]
    others = [trial for trial in meeting if widths_of(trial) != widths_of(chosen)]
    if chosen.name == BASE or not others:
        return ""
    how = "is as fast as any" if chosen.latency_ms is not None else "is the smallest"
    second = best_of(others, budgets)
    assert second is not None
    target = outcome.search.target
    where = "" if target is None else f" on {target.machine}"
    costs = [] if second.latency_ms is None else [milliseconds(second.latency_ms) + where]
    costs += [megabytes(second.costs["size_bytes"])]
    lost = "" if second.lost is None else f", expected to lose {second.lost:.1f}"
    return (
        f"It {'is compressed least' if budgets.costs else how} of {len(meeting)} that meet the budget; the second best "
        f"is {quoted(second.name)} ({', '.join(costs)}{lost})."
    )


def _why_none(there: Sequence[Trial], stopped: Trial | None, outcome: Outcome) -> str:
    """What came nearest, in a sentence."""
    budgets = outcome.settings.budgets
    none = "No model meets the budget" if stopped is None else f"The plan stopped: {stopped.reason}"
    nearest = nearest_of(there, budgets)
    if nearest is None:
        tried = "nothing that was tried came out" if len(outcome.search.trials) > 1 else "none was tried"
        return f"{none}; {tried}."
    if stopped is not None:
        return f"{none}. The last that passed is {quoted(there[-1].name)}."
    over = nearest.over(budgets)
    parts = [f"is expected to lose {nearest.lost:.1f} points where {budgets.max_drop:g} may be lost"]
    takes = [f"{times:.2g} times the {NAMES[name]}" for name, times in over.items() if not math.isinf(times)]
    parts += [f"takes {', '.join(takes)} allowed"] if takes else []
    parts += [f"its {NAMES[name]} is not known" for name, times in over.items() if math.isinf(times)]
    return f"{none}; the nearest is {quoted(nearest.name)}, which {' and '.join(parts)}."


def _said(shown: Trial | None, outcome: Outcome) -> list[str]:
    """How sure one can be of what the chosen one, or the nearest, loses."""
    max_drop = outcome.settings.max_drop
    if shown is None or shown.drop is None or shown.name == BASE:
        return []
    needed, most = images_needed(max_drop, shown.drop), shown.drop.ci_points[1]
    lost = 0.0 if shown.lost is None else shown.lost
    said = f"{shown.name} is expected to lose {lost:.1f} points; on {shown.drop.n} validation images it lost "
    said += f"{shown.drop.points:.1f}, at most {most:.1f} (95%)"
    if needed > shown.drop.n:
        said += f"; to see a loss of {max_drop:g} it would take about {needed:,}"
        said += ", so how its answers differ from the fitted model's counts too" if shown.nats is not None else ""
    return [said]
