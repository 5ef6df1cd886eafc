"""What a search has found, written: the chosen model, all that were tried, how they compare, and the plan."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.benchmark.harness import bench
from compress.deployment.export import export
from compress.plan.plan import Plan, PlannedStep
from compress.plan.settings import Compress
from compress.plan.trial import BASE, NAMES, Trial, best_of, images_needed, nearest_of
from compress.report.report import Report, build_report
from zoo.disk import write_json
from zoo.files.manifest import CHECKPOINTS, TRIALS, replace_files
from zoo.files.model_directory import ONNX, config_files, read_config
from zoo.progress import Progress

MODEL, VARIANTS, PLAN = "model", "variants", "plan.yaml"
TIMED: dict[str, Any] = {}  # options of `bench`
MOST_TIMED = 6  # models that are measured side by side in the end


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        fitted: the step that made the first of the trials, where that was done here.
        said: what a person should know of the search.
        data: the images.
    """

    trials: Sequence[Trial]
    settings: Compress
    fitted: PlannedStep | None
    said: Sequence[str]
    data: str


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """
    Attributes:
        out: the directory that was made.
        met: whether a model meets the budgets, which is then `out`/model.
        chosen: its name among the variants.
        record: {"baseline", "chosen", "variants", "budgets", "met"}.
        report: see `Report`.
    """

    out: Path
    met: bool
    chosen: str | None
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
        return [["python", model / "deploy" / "infer.py", "IMAGE"], ["slimzoo", "predict", model, "IMAGE"]]


def deliver(outcome: Outcome, work: Path, out: Path, *, progress: Progress | None) -> Compressed:
    """Fill the directory in work, which becomes `out`."""
    budgets, settings = outcome.settings.budgets, outcome.settings
    there = [trial for trial in outcome.trials if trial.kept is not None]
    places = {str(t.kept.path): str(out / VARIANTS / t.name) for t in there if t.kept is not None}
    for trial in there:
        _copy(trial, work / VARIANTS / trial.name, places, progress)
    timed = _finalists(there, outcome)
    found = bench(
        [work / VARIANTS / trial.name for trial in timed],
        runtimes=["onnxruntime"],
        threads=settings.threads,
        save=work / "bench.json",
        progress=progress,
        **TIMED,
    )
    latencies = {row["model"]: row["median_ms"] for row in found.rows if not row.get("disturbed")}
    trials = [replace(t, latency_ms=latencies.get(t.name, t.latency_ms)) for t in outcome.trials]
    chosen = best_of(trials, budgets)
    report = build_report(
        work, max_drop=settings.max_drop, models=work / VARIANTS, chosen=None if chosen is None else chosen.name
    )
    if chosen is not None:
        shutil.copytree(work / VARIANTS / chosen.name, work / MODEL)
        (work / PLAN).write_text(_plan(outcome, chosen).text(_command(outcome, PLAN)), encoding="utf-8")
    write_json(work / TRIALS, [trial.document(budgets) for trial in trials])
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    record = {
        "baseline": BASE,
        "chosen": None if chosen is None else chosen.name,
        "variants": [trial.document(budgets) for trial in trials],
        "budgets": budgets.record(),
        "met": chosen is not None,
    }
    said = [*outcome.said, *_said(trials, chosen, outcome)]
    return Compressed(
        out=out,
        met=chosen is not None,
        chosen=None if chosen is None else chosen.name,
        record=record,
        report=report,
        said=said,
    )


def _finalists(there: Sequence[Trial], outcome: Outcome) -> list[Trial]:
    """The fitted model, those that may be chosen, and then others, as many as are timed side by side."""
    budgets = outcome.settings.budgets
    first = [trial for trial in there if trial.name == BASE]
    rest = sorted((t for t in there if t.name != BASE), key=lambda t: (not t.meets(budgets), t.costs["macs"] or 0.0))
    return [*first, *rest][:MOST_TIMED]


def _copy(trial: Trial, place: Path, places: dict[str, str], progress: Progress | None) -> None:
    """A model directory with its exported file; its records name where it is now, not where it was kept."""
    assert trial.kept is not None
    shutil.copytree(trial.kept.path, place)
    config = read_config(place)
    lineage = [_moved(record, places) for record in config.lineage]
    replace_files(place, config_files(replace(config, lineage=lineage)))
    if not (place / ONNX).exists():
        export(place, progress=progress)


def _moved(record: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    arguments = {k: places.get(v, v) if isinstance(v, str) else v for k, v in record.get("arguments", {}).items()}
    return {**record, "arguments": arguments}


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
        over = ", ".join(f"{times:.2g} times the {NAMES[name]}" for name, times in nearest.over(budgets).items())
        return [
            f"no model meets the budget; the nearest is {nearest.name}, which is expected to lose {nearest.lost:.1f} "
            f"points where {budgets.max_drop:g} may be lost" + (f" and takes {over} allowed" if over else "")
        ]
    if chosen.drop is None or chosen.name == BASE:
        return []
    needed, most = images_needed(budgets.max_drop, chosen.drop), chosen.drop.ci_points[1]
    said = f"{chosen.name} is expected to lose {chosen.lost:.1f} points; on {chosen.drop.n} validation images it lost "
    said += f"{chosen.drop.points:.1f}, at most {most:.1f} (95%)"
    if needed > chosen.drop.n:
        said += f"; to see a loss of {budgets.max_drop:g} it would take about {needed:,}"
    return [said]
