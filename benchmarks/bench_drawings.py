"""Are the figures on drawings still what they were, since recipes are chosen on photographs?

    python benchmarks/bench_drawings.py [SEED...]

Our own rows of bench_transfer.py (`fit` of emoji, and of 20 a class) and of bench_prune.py (emoji, to three shares of
the MACs) are measured again, with this code, the same images and seeds, and compared with the rows that
results/transfer.json and results/prune.json hold; their peers are not. Answers to the same test images are paired
where they were kept. Rows are kept as they come in results/drawings.runs.json, and what is there is not run again.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_prune
from bench_transfer import few, ours
from record import RESULTS, Rows, write_result

from compress.pruning.step import prune
from compress.recovery.gradient_batches import BATCH
from transfer.data.fitted_data import open_for
from transfer.data.parts import read_pixels
from transfer.evaluation.statistics import paired_drop
from zoo.files.model_directory import read_config

FITS = ("emoji", "emoji-20")
WORSE = -0.5  # points in the mean over the seeds, from which on it is said
Row = dict[str, Any]


def main(seeds: Sequence[int]) -> int:
    kept = Rows("drawings")
    emoji = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji").resolve()
    for seed in seeds:
        for task in FITS:
            if not kept.find(task=f"fit {task}", seed=seed):
                with tempfile.TemporaryDirectory() as name:
                    folder, google = Path(name), emoji / "google"
                    data = google if task == "emoji" else few(google, folder, seed)
                    row = ours("auto", data, emoji / "twitter", seed, folder)
                keep(kept, f"fit {task}", seed, row)
        cuts = [share for share in bench_prune.SHARES if not kept.find(task=f"prune {share}", seed=seed)]
        with tempfile.TemporaryDirectory() as name:
            for share, row in pruned(cuts, seed, Path(name)):
                keep(kept, f"prune {share}", seed, row)
    figures = compared(kept.all)
    print(write_result("drawings", figures, f"python benchmarks/bench_drawings.py {' '.join(map(str, seeds))}".strip()))
    return 4 if figures["missed"] else 0


def keep(kept: Rows, task: str, seed: int, row: Row) -> None:
    top1 = row.get("test_top1_pct", row.get("top1_pct"))
    kept.keep({"task": task, "seed": seed, "top1_pct": top1, "seconds": row["seconds"], "correct": row["correct"]})
    print(task, seed, f"{top1:.2f}% {row['seconds']:.0f} s", flush=True)


def pruned(shares: Sequence[float], seed: int, folder: Path) -> Any:
    """A row of each share, as bench_prune.py measures ours."""
    if not shares:
        return
    dense, data = bench_prune.fitted("emoji", seed, folder)
    config = read_config(dense)
    images = len(read_pixels(open_for(config, data), config.preprocess, None).train)
    epochs = bench_prune.STEPS // -(-images // BATCH)
    for share in shares:
        step = prune(dense, data=data, macs=share, recover=epochs, out=folder / f"cut-{share}", seed=seed)
        found = bench_prune.figures_of(step.record["metrics"]["after"])
        yield share, {**found, "seconds": step.record["seconds"]}


def before(task: str) -> list[Row]:
    """The rows of ours that were measured before, of all seeds."""
    verb, _, which = task.partition(" ")
    name = "transfer" if verb == "fit" else "prune"
    runs = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["figures"]["runs"]
    if verb == "fit":
        return [run for run in runs if run["task"] == which and run["method"] == "auto"]
    return [
        {**run, "top1_pct": run["test_top1_pct"]}
        for run in runs
        if run["task"] == "emoji" and run["share"] == float(which) and run["method"] == "slimzoo"
    ]


def compared(rows: Sequence[Row]) -> dict[str, Any]:
    cells, missed = [], []
    for task in dict.fromkeys(row["task"] for row in rows):
        was = {run["seed"]: run for run in before(task)}
        pairs = [(was[row["seed"]], row) for row in rows if row["task"] == task and row["seed"] in was]
        old, new = ([pair[side]["top1_pct"] for pair in pairs] for side in (0, 1))
        cell: Row = {
            "task": task,
            "seeds": [row["seed"] for _, row in pairs],
            "before_top1_pct": round(statistics.mean(old), 2),
            "top1_pct": round(statistics.mean(new), 2),
            "gains_points": round(statistics.mean(new) - statistics.mean(old), 2),
            "gains_points_by_seed": [round(after - then, 2) for then, after in zip(old, new, strict=True)],
            "seconds": round(statistics.mean(row["seconds"] for _, row in pairs), 1),
        }
        if all("correct" in run for pair in pairs for run in pair):
            drop = paired_drop(*("".join(pair[side]["correct"] for pair in pairs) for side in (0, 1)))
            cell["gains_ci_points"] = [round(-drop.ci_points[1], 2), round(-drop.ci_points[0], 2)]
        if cell["gains_points"] < WORSE:
            missed.append(f"{task}: {-cell['gains_points']:.1f} points worse than before")
        cells.append(cell)
    return {"cells": cells, "missed": missed, "runs": [{k: v for k, v in r.items() if k != "correct"} for r in rows]}


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2]))
