"""What the rows of bench_search.py come to: points lost, times as fast, promises kept, and which bars are met.

Rows are of one task, model and seed each, with a `method`: "fit" is the fitted network, "times" what all files were
measured to take side by side, as {method: {runtime: {"median_ms", "ratio", "ratio_ci"}}} in `rows`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.evaluation.statistics import paired_drop

MOST_LOST = 1.0  # points
TIMES_AS_FAST, OVER_BEST_PEER = 3.0, 1.5
PROMISED_MEDIAN, PROMISED_WORST = 0.10, 0.25  # how far latencies may be from the promised ones; the worst decile
MINUTES = {"digits": 30.0, "emoji": 60.0}  # of the fit and the search together
AS_FAST = 0.95  # times ours, from which on another is called as fast
FIT, TIMES, OURS = "fit", "times", "ours"
ORT, OPENVINO = "onnxruntime", "openvino"
AS_IT_IS = f"{FIT} in {OPENVINO}"  # a peer that nobody has to make

Row = dict[str, Any]
Group = dict[str, Row]  # of one task, model and seed, by method


def figures(rows: Sequence[Row], peers: Sequence[str], by_hand: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        peers, by_hand: methods that ours is compared with: others', and our own steps put together by a person.
    """
    groups: dict[tuple[str, str], dict[int, Group]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["model"]), {}).setdefault(row["seed"], {})[row["method"]] = row
    cells, missed, promises = [], list[str](), list[float]()
    for (task, model), by_seed in groups.items():
        failed = [(seed, reason) for seed in sorted(by_seed) if (reason := by_seed[seed].get(OURS, {}).get("reason"))]
        missed += [f"{task}, {model}, seed {seed}: {reason}" for seed, reason in failed]
        complete = [by_seed[seed] for seed in sorted(by_seed) if _is_complete(by_seed[seed])]
        if not complete:
            continue
        cell = _cell(complete, peers, by_hand)
        promises += [error for group in complete for error in _promise_errors(group[OURS])]
        missed += [f"{task}, {model}: {said}" for said in _missed_in(cell, MINUTES.get(task, math.inf))]
        seeds = [group[OURS]["seed"] for group in complete]
        on = list(dict.fromkeys(group[TIMES].get("processor") for group in complete))
        cells.append({"task": task, "model": model, "seeds": seeds, "processors": on, **cell})
    told = _promises(promises)
    return {
        "cells": cells,
        "promises": told,
        "bars": {
            "most_lost_points": MOST_LOST,
            "times_as_fast": TIMES_AS_FAST,
            "times_as_fast_as_best_peer": OVER_BEST_PEER,
            "promised_off_median": PROMISED_MEDIAN,
            "promised_off_worst_decile": PROMISED_WORST,
            "minutes": MINUTES,
        },
        "missed": missed + _missed_promises(told),
        "runs": [{key: value for key, value in row.items() if key != "correct"} for row in rows],
    }


def _is_complete(group: Group) -> bool:
    """Whether all that a comparison needs was measured; of a search that found nothing, nothing can be compared."""
    return {FIT, OURS, TIMES} <= group.keys() and "reason" not in group[OURS] and _speed(group, OURS) is not None


def _cell(groups: Sequence[Group], peers: Sequence[str], by_hand: Sequence[str]) -> dict[str, Any]:
    ours = _method(groups, OURS)
    assert ours is not None
    others = {name: found for name in (*peers, AS_IT_IS) if (found := _method(groups, name)) is not None}
    cell: dict[str, Any] = {
        "fitted_top1_pct": _mean([group[FIT]["top1_pct"] for group in groups]),
        OURS: {
            **ours,
            "chosen": [group[OURS]["chosen"] for group in groups],
            "runtimes": [_runtime(group, OURS) for group in groups],
        },
        "minutes": _mean([(group[FIT]["seconds"] + group[OURS]["seconds"]) / 60 for group in groups]),
        "peers": others,
        "best_peer": None,
        "by_hand": {name: found for name in by_hand if (found := _against_ours(groups, name)) is not None},
        "promises": _promises([error for group in groups for error in _promise_errors(group[OURS])]),
        "not_measured": sorted({f"{m}: {row['reason']}" for g in groups for m, row in g.items() if "reason" in row}),
    }
    good = {name: found for name, found in others.items() if found["loses_points"] <= MOST_LOST}
    if good:
        best = max(good, key=lambda name: float(good[name]["times_as_fast"]))
        cell["best_peer"] = {"name": best, **_over(groups, best)}
    return cell


def _method(groups: Sequence[Group], name: str) -> dict[str, Any] | None:
    """Means over the seeds in which it was measured; None where it was in none."""
    there = [group for group in groups if _speed(group, name) is not None]
    if not there:
        return None
    before = "".join(group[FIT]["correct"] for group in there)
    after = "".join(_row(group, name)["correct"] for group in there)
    drop, speeds = paired_drop(before, after), [_known(group, name) for group in there]
    seconds = [row["seconds"] for group in there if (row := group.get(name)) is not None]
    return {
        "seeds": len(there),
        "top1_pct": _mean([_row(group, name)["top1_pct"] for group in there]),
        "loses_points": _mean([group[FIT]["top1_pct"] - _row(group, name)["top1_pct"] for group in there]),
        "loses_ci_points": [round(edge, 2) for edge in drop.ci_points],
        "times_as_fast": statistics.geometric_mean(speeds),
        "times_as_fast_by_seed": speeds,
        "times_as_fast_ci_by_seed": [_timed(group, name)["ratio_ci"] for group in there],
        "seconds": _mean(seconds) if seconds else None,
    }


def _over(groups: Sequence[Group], peer: str) -> dict[str, Any]:
    """How many times as fast as the peer ours is, in the runtime of each."""
    ratios = [_known(group, OURS) / speed for group in groups if (speed := _speed(group, peer)) is not None]
    return {"ours_times_as_fast": statistics.geometric_mean(ratios), "ours_times_as_fast_by_seed": ratios}


def _against_ours(groups: Sequence[Group], name: str) -> dict[str, Any] | None:
    """The same as of a peer; and, in the runtime that ours has chosen, what ours gains where the other is as fast."""
    found = _method(groups, name)
    if found is None:
        return None
    ratios, before, after = [], "", ""
    for group in groups:
        runtime = _runtime(group, OURS)
        theirs, own = (group[TIMES]["rows"].get(one, {}).get(runtime, {}).get("ratio") for one in (name, OURS))
        if theirs is None or own is None:
            continue
        ratios.append(theirs / own)
        if ratios[-1] >= AS_FAST:
            before, after = before + group[OURS]["correct"], after + group[name]["correct"]
    found["times_as_fast_as_ours_by_seed"] = ratios
    found["seeds_as_fast"] = sum(ratio >= AS_FAST for ratio in ratios)
    if before:
        drop = paired_drop(before, after)
        found["ours_gains_points"] = round(drop.points, 2)
        found["ours_gains_ci_points"] = [round(edge, 2) for edge in drop.ci_points]
    return found


def _row(group: Group, name: str) -> Row:
    return group[FIT] if name == AS_IT_IS else group[name]


def _runtime(group: Group, name: str) -> str:
    return OPENVINO if name == AS_IT_IS else str(_row(group, name).get("runtime") or ORT)


def _timed(group: Group, name: str) -> dict[str, Any]:
    method = FIT if name == AS_IT_IS else name
    found: dict[str, Any] = group[TIMES]["rows"].get(method, {}).get(_runtime(group, name), {})
    return found


def _speed(group: Group, name: str) -> float | None:
    """Times as fast as the fitted network in onnxruntime; None where it was not measured."""
    row = group.get(FIT if name == AS_IT_IS else name)
    if row is None or "reason" in row or (ratio := _timed(group, name).get("ratio")) is None:
        return None
    return float(ratio) * max(1.0, float(row.get("own_form_times_as_fast", 1.0)))


def _known(group: Group, name: str) -> float:
    speed = _speed(group, name)
    assert speed is not None
    return speed


def _promise_errors(ours: Row) -> list[float]:
    """How far the latency of each candidate is from what was promised, as a share of it."""
    pairs = [(trial.get("promised_ms"), trial.get("latency_ms")) for trial in ours["trials"]]
    return [abs(promised - measured) / measured for promised, measured in pairs if promised and measured]


def _promises(errors: Sequence[float]) -> dict[str, Any]:
    if not errors:
        return {"candidates": 0, "off_median": None, "off_worst_decile": None}
    median, worst = (float(np.quantile(errors, share)) for share in (0.5, 0.9))
    return {"candidates": len(errors), "off_median": median, "off_worst_decile": worst}


def _missed_promises(told: dict[str, Any]) -> list[str]:
    if not told["candidates"]:
        return []
    missed = []
    if told["off_median"] > PROMISED_MEDIAN:
        missed.append(f"half of the latencies are {told['off_median']:.0%} and more from what was promised")
    if told["off_worst_decile"] > PROMISED_WORST:
        missed.append(f"a tenth of the latencies are {told['off_worst_decile']:.0%} and more from what was promised")
    return missed


def _missed_in(cell: dict[str, Any], most_minutes: float) -> list[str]:
    ours, best = cell[OURS], cell["best_peer"]
    missed = []
    if ours["loses_points"] > MOST_LOST:
        missed.append(f"{ours['loses_points']:.2f} points are lost")
    if ours["times_as_fast"] < TIMES_AS_FAST:
        missed.append(f"{ours['times_as_fast']:.2f} times as fast as it was")
    if best is not None and best["ours_times_as_fast"] < OVER_BEST_PEER:
        missed.append(f"{best['ours_times_as_fast']:.2f} times as fast as {best['name']}")
    if cell["minutes"] > most_minutes:
        missed.append(f"{cell['minutes']:.0f} minutes")
    for name, found in cell["by_hand"].items():
        if found.get("ours_gains_points", 0.0) < 0:
            missed.append(f"{name} is as fast and {-found['ours_gains_points']:.2f} points better")
    return missed


def _mean(values: Sequence[float]) -> float:
    return round(statistics.mean(values), 4)
