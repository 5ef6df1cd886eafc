"""What a search has found, written: the chosen model, all that were tried, how they compare, and the plan."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.benchmark.harness import bench
from compress.deployment.onnx_result import run_without_slimzoo
from compress.plan.losses import images_needed
from compress.plan.plan import Plan, PlannedStep
from compress.plan.promises import in_step
from compress.plan.searching import Search
from compress.plan.settings import Budgets, Compress
from compress.plan.timing import RUNTIMES, machine, memory_of
from compress.plan.trial import BASE, NAMES, Trial, best_of, nearest_of
from compress.report.report import Report, build_report
from compress.report.searched import VARIANTS
from zoo.disk import read_json, write_json
from zoo.files.manifest import CHECKPOINTS, TRIALS, replace_files
from zoo.files.model_directory import config_files, read_config

MODEL, PLAN, BENCH = "model", "plan.yaml", "bench.json"
TIMED: dict[str, Any] = {}  # options of `bench`
MOST_TIMED = 6  # models that are measured side by side in the end


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
    """Fill the directory in work, which becomes `out`."""
    search, budgets = outcome.search, outcome.settings.budgets
    for folder in (VARIANTS, MODEL):  # of a run that was interrupted here
        shutil.rmtree(work / folder, ignore_errors=True)
    kept = {trial.name: trial.kept for trial in search.trials if trial.kept is not None and trial.kept.path.exists()}
    there = [trial for trial in search.trials if trial.name in kept]
    places = {str(each.path): str(out / VARIANTS / name) for name, each in kept.items()}
    exported = {name: search.pipeline.exported(each) for name, each in kept.items()}
    places |= {str(path): str(out / VARIANTS / name) for name, path in exported.items()}
    for name, path in exported.items():
        _copy(path, work / VARIANTS / name, places)
    rows = _measured(_finalists(there, budgets), search, work)
    trials = _as_promised([_as_measured(trial, rows.get(trial.name, []), search) for trial in search.trials], search)
    chosen = best_of([trial for trial in trials if (work / VARIANTS / trial.name).exists()], budgets)
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
    if chosen is not None:
        shutil.copytree(work / VARIANTS / chosen.name, work / MODEL)
        (work / PLAN).write_text(_plan(outcome, chosen).text(_command(outcome, PLAN)), encoding="utf-8")
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    gone = [trial.name for trial in search.trials if trial.kept is not None and trial.name not in kept]
    said = [f"made by a worker whose steps are not kept here, and left out: {', '.join(gone)}"] if gone else []
    said += [] if search.target is None else [search.target.said()]
    said = [*search.said, *said, *_said(trials, chosen, outcome)]
    return Compressed(
        out=out,
        met=chosen is not None,
        chosen=record["chosen"],
        runtime=record["runtime"],
        record=record,
        report=report,
        said=said,
    )


def _measured(timed: Sequence[Trial], search: Search, work: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of a benchmark side by side, by the model's name; the same models are not timed again."""
    pipeline, settings = search.pipeline, search.settings

    def rows() -> Any:
        with pipeline.device.alone():
            bench(
                [work / VARIANTS / trial.name for trial in timed],
                runtimes=list(search.runtimes),
                threads=settings.threads,
                save=work / BENCH,
                progress=pipeline.progress,
                **TIMED,
            )
        return read_json(work / BENCH)

    keys = [(trial.name, trial.kept.key) for trial in timed if trial.kept is not None]
    terms = [keys, search.runtimes, settings.threads, TIMED, machine()]
    found = pipeline.remembered("bench", terms, rows, keeps=lambda found: not any(map(_is_unsure, found["rows"])))
    write_json(work / BENCH, found)
    return {trial.name: [row for row in found["rows"] if row["model"] == trial.name] for trial in timed}


def _is_unsure(row: dict[str, Any]) -> bool:
    return bool(row.get("disturbed")) or row["median_ms"] is None


def _as_measured(trial: Trial, rows: Sequence[dict[str, Any]], search: Search) -> Trial:
    """With the latencies of rows that nothing disturbed, and the time to an answer where that counts."""
    sure = [row for row in rows if not _is_unsure(row)]
    if not sure:
        return trial
    here = {row["runtime"]: float(row["median_ms"]) for row in sure}
    latencies = search.expected(here, int8=trial.is_int8)
    return replace(trial, latencies=latencies, memory_bytes=memory_of(sure)).answering(search.overhead_ms)


def _as_promised(trials: Sequence[Trial], search: Search) -> list[Trial]:
    """With the latency that was promised of each, by that of the fitted model as it was measured beside it."""
    base = next((trial.latency_ms for trial in trials if trial.name == BASE), None)
    promised = in_step(search.promised, base)

    def of(trial: Trial) -> float | None:
        if trial.name == BASE or trial.candidate is None:
            return None
        return promised.get(replace(trial.candidate, longer=False), {}).get("latency_ms")

    return [replace(trial, promised_ms=of(trial)) for trial in trials]


def _finalists(there: Sequence[Trial], budgets: Budgets) -> list[Trial]:
    """The fitted model, those that may be chosen, and then others, as many as are timed side by side."""
    first = [trial for trial in there if trial.name == BASE]
    rest = sorted((t for t in there if t.name != BASE), key=lambda t: (not t.meets(budgets), t.costs["macs"] or 0.0))
    return [*first, *rest][:MOST_TIMED]


def _copy(kept: Path, place: Path, places: dict[str, str]) -> None:
    """A model directory, whose records name where it is now, not where it was kept."""
    shutil.copytree(kept, place)
    config = read_config(place)
    lineage = [_moved(record, places) for record in config.lineage]
    replace_files(place, config_files(replace(config, lineage=lineage)))


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
