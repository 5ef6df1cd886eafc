"""What a search has found, laid out and measured side by side: by these latencies a model is chosen."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.benchmark.harness import bench
from compress.plan.pipeline import Kept
from compress.plan.promises import in_step, promised_ms
from compress.plan.searching import Search
from compress.plan.timing import machine, memories_of
from compress.plan.trial import BASE, Trial
from compress.report.searched import VARIANTS
from zoo.disk import read_json, write_json
from zoo.files.manifest import replace_files
from zoo.files.model_directory import config_files, read_config

BENCH = "bench.json"
TIMED: dict[str, Any] = {}  # options of `bench`
MOST_TIMED = 8  # models that are measured side by side


def compare(search: Search, work: Path, out: Path) -> None:
    """Fill `work`/variants, and give the search's trials the latencies that its finalists have side by side.

    Args:
        out: where `work` will be in the end.
    """
    kept = kept_of(search.trials)
    search.show()
    _lay_out(kept, search, work, out)
    rows = _measured(_finalists([t for t in search.trials if t.name in kept], search), search, work)
    anew = any(not _is_unsure(row) for own in rows.values() for row in own) and not search.budgets.of_time
    before = [replace(t, latencies={}, memory_bytes=None) if anew else t for t in search.trials]  # of another benchmark
    measured = [_as_measured(trial, rows.get(trial.name, []), search) for trial in before]
    search.trials = _as_promised(measured, search)


def kept_of(trials: Sequence[Trial]) -> dict[str, Kept]:
    """Those that are still there, by their names."""
    return {trial.name: trial.kept for trial in trials if trial.kept is not None and trial.kept.path.exists()}


def _lay_out(kept: dict[str, Kept], search: Search, work: Path, out: Path) -> None:
    shutil.rmtree(work / VARIANTS, ignore_errors=True)  # of a run that was interrupted here
    places = {str(each.path): str(out / VARIANTS / name) for name, each in kept.items()}
    exported = {name: search.pipeline.exported(each) for name, each in kept.items()}
    places |= {str(path): str(out / VARIANTS / name) for name, path in exported.items()}
    for name, path in exported.items():
        _copy(path, work / VARIANTS / name, places)


def _copy(kept: Path, place: Path, places: dict[str, str]) -> None:
    """A model directory, whose records name where it is now, not where it was kept."""
    shutil.copytree(kept, place)
    config = read_config(place)
    lineage = [_moved(record, places) for record in config.lineage]
    replace_files(place, config_files(replace(config, lineage=lineage)))


def _moved(record: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    arguments = {k: places.get(v, v) if isinstance(v, str) else v for k, v in record.get("arguments", {}).items()}
    return {**record, "arguments": arguments}


def _finalists(there: Sequence[Trial], search: Search) -> list[Trial]:
    """The fitted model, those that may be chosen, and then others, as many as are timed side by side, the ones first
    that promise to be fast."""

    def order(trial: Trial) -> tuple[bool, float, float]:
        promised = math.inf if trial.candidate is None else promised_ms(trial.candidate, search.promised) or math.inf
        meets, macs = trial.meets(search.budgets), trial.costs["macs"] or 0.0
        if meets and search.budgets.costs:
            return False, -macs, float(trial.is_int8)  # as `best_of` prefers them
        return not meets, trial.latency_ms or promised, macs

    first = [trial for trial in there if trial.name == BASE]
    others = sorted((trial for trial in there if trial.name != BASE), key=order)[: MOST_TIMED - len(first)]
    return [*first, *sorted(others, key=lambda trial: trial.name)]  # the same ones are the same benchmark


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
    found = pipeline.remembered(
        "bench", terms, rows, keeps=lambda found: not any(row.get("disturbed") for row in found["rows"])
    )
    write_json(work / BENCH, found)
    return {trial.name: [row for row in found["rows"] if row["model"] == trial.name] for trial in timed}


def _is_unsure(row: dict[str, Any]) -> bool:
    return bool(row.get("disturbed")) or row["median_ms"] is None


def _as_measured(trial: Trial, rows: Sequence[dict[str, Any]], search: Search) -> Trial:
    """With the latencies of rows that nothing disturbed, and the time to an answer where that counts."""
    sure = [row for row in rows if not _is_unsure(row)]
    if not sure or (trial.latencies and any(row.get("disturbed") for row in rows)):
        return trial  # what is fast in one runtime may be faster in the other
    here = {row["runtime"]: float(row["median_ms"]) for row in sure}
    return search.with_costs(trial, here, memories_of(sure))


def _as_promised(trials: Sequence[Trial], search: Search) -> list[Trial]:
    """With the latency that was promised of each, at the speed of the machine by what was measured of the others."""
    measured = {t.candidate: t.latency_ms for t in trials if t.candidate is not None and t.latency_ms is not None}

    def of(trial: Trial) -> float | None:
        if trial.name == BASE or trial.candidate is None:
            return None
        own = trial.candidate
        others = {c: ms for c, ms in measured.items() if c.plain != own.plain}
        return promised_ms(own, in_step(search.tables, others))

    return [replace(trial, promised_ms=of(trial)) for trial in trials]
