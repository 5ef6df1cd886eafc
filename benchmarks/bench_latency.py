"""Is a network that was cut for milliseconds better than one cut uniformly to as many? Are they predicted rightly?

    python benchmarks/bench_latency.py [SEED...]

tf_efficientnet_lite0 at 64 px on emoji, cut to half of its latency in onnxruntime (batch 1, one thread a core) by
`slimzoo prune --latency`; and by `--allocation uniform`, the same share of every group, to the share of the MACs at
which it takes as long (bisection over measured latencies). Both recover for as many steps; at the end both are measured
side by side, in turns. The data are found by SLIMZOO_DATA (default ../shared/data).

Predictions are compared with measurements of networks that the table has not seen: of random widths, and the ones that
`--latency` chose. Rows are kept as they come in results/latency.runs.json, and what is there is not run again.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_prune import NOT_WORSE, STEPS, answers, figures_of, fitted
from record import Rows, write_result

from compress.benchmark.harness import bench
from compress.dependency.cut import cut_copy
from compress.dependency.groups import find_groups
from compress.deployment.export import export
from compress.pruning.latency import LatencyTable, latency_table, measured_ms, sampled
from compress.pruning.step import Choice, Cutter, prune
from compress.recovery.gradient_batches import BATCH
from transfer.data.fitted_data import open_for
from transfer.data.parts import Pixels, read_pixels
from transfer.evaluation.statistics import paired_drop
from zoo.files.model_directory import LoadedModel, load_model

SHARE = 0.5  # of the milliseconds
UNSEEN = 12  # networks
WITHIN = 0.1  # the median relative error of the predictions
CLOSE = 0.03  # of the milliseconds, at which bisection ends
TRIES = 6


def main(seeds: list[int]) -> int:
    rows = Rows("latency")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLIMZOO_CACHE"] = str(Path(folder, "cache"))  # a table measured under other load is not there
        for seed in seeds:
            if rows.find(seed=seed):
                continue
            dense, data = fitted("emoji", seed, Path(folder))
            loaded = load_model(dense)
            source = open_for(loaded.config, data)
            pixels = read_pixels(source, loaded.config.preprocess, None)
            size = loaded.config.input_size
            grouping = find_groups(loaded.model, _example(size))
            table = latency_table(loaded.model, size, grouping)
            row: dict[str, Any] = {"seed": seed, "table_error": table.error}
            if not rows.all:
                row["unseen"] = _unseen(loaded, grouping, table)
            epochs = STEPS // -(-len(pixels.train) // BATCH)
            wanted = SHARE * float(table.ms[0])
            by = Path(folder, f"{seed}-latency")
            step = prune(dense, data=data, latency=wanted, recover=epochs, out=by, seed=seed)
            row["latency"] = figures_of(step.record["metrics"]["after"]) | step.record["latency"]
            share = _as_slow(loaded, pixels, step.pruned.model, seed)
            out = Path(folder, f"{seed}-uniform")
            uniform = prune(dense, data=data, macs=share, allocation="uniform", recover=epochs, out=out, seed=seed)
            row["uniform"] = figures_of(uniform.record["metrics"]["after"])
            for directory in (by, out):
                export(directory)
            found = bench([by, out], runtimes=["onnxruntime"])
            if found["rows"][1]["ratio"] is None:
                sys.exit(f"no result: {'; '.join(found['diagnoses'])}")
            row["side_by_side"] = {
                "latency_ms": found["rows"][0]["median_ms"],
                "uniform_ms": found["rows"][1]["median_ms"],
                "uniform_is_faster_by": found["rows"][1]["ratio"],
                "ci": found["rows"][1]["ratio_ci"],
                "noise": found["noise"],
            }
            rows.keep(row)
            tops = {kind: row[kind]["test_top1_pct"] for kind in ("latency", "uniform")}
            print(seed, tops, row["side_by_side"], row.get("unseen", {}).get("median_error"), flush=True)
    figures = _compare(rows.all)
    print(write_result("latency", figures, f"python benchmarks/bench_latency.py {' '.join(map(str, seeds))}".strip()))
    rows.finish()
    return 4 if figures["missed"] else 0


def _example(size: tuple[int, ...]) -> Any:
    import torch

    return torch.empty(1, *size, device="meta")


def _unseen(loaded: LoadedModel, grouping: Any, table: LatencyTable) -> dict[str, Any]:
    """Networks of other random widths, predicted and measured."""
    keeps = sampled(grouping, UNSEEN + 1, round_to=8, floor=0.1, seed=1)[1:]
    models = [loaded.model, *(cut_copy(loaded.model, grouping, keep) for keep in keeps)]
    whole, *ms = measured_ms(models, loaded.config.input_size)
    predicted = [table.cost.after(keep) / float(table.ms[0]) for keep in keeps]
    errors = [abs(p / (m / whole) - 1) for p, m in zip(predicted, ms, strict=True)]  # of the whole one, at both times
    pairs = [[round(p, 4), round(float(m / whole), 4)] for p, m in zip(predicted, ms, strict=True)]
    return {"networks": UNSEEN, "predicted_and_measured": pairs, "median_error": statistics.median(errors)}


def _as_slow(loaded: LoadedModel, pixels: Pixels, other: Any, seed: int) -> float:
    """The share of the MACs at which a uniform cut takes as long as `other`; a little longer rather than shorter."""
    low, high = 0.05, 1.0
    tried: list[tuple[float, float]] = []  # times as long as the other, share
    for _ in range(TRIES):
        share = (low * high) ** 0.5
        choice = Choice(macs=share, allocation="uniform")
        cut = Cutter(loaded, pixels, choice, seed=seed).cut(loaded.model).model
        ms, goal = measured_ms([cut, other], loaded.config.input_size)
        tried.append((ms / goal, share))
        if abs(ms / goal - 1) <= CLOSE:
            break
        low, high = (low, share) if ms > goal else (share, high)
    return min((pair for pair in tried if pair[0] >= 1 - CLOSE), default=max(tried))[1]


def _compare(runs: list[dict[str, Any]]) -> dict[str, Any]:
    drop = paired_drop(*(answers([run[kind] for run in runs]) for kind in ("uniform", "latency")))
    unseen = next(run["unseen"] for run in runs if "unseen" in run)
    noise = max(run["side_by_side"]["noise"]["floor_pct"] for run in runs)
    chosen = [abs(run["latency"]["predicted_ms"] / run["latency"]["measured_ms"] - 1) for run in runs]
    missed = []
    if -drop.ci_points[1] < NOT_WORSE:
        missed.append("may be worse than uniform")
    if max(run["side_by_side"]["uniform_is_faster_by"] for run in runs) > 1 + max(CLOSE, noise / 100):
        missed.append("the uniform cut ran faster: no equal milliseconds")
    if unseen["median_error"] > max(WITHIN, noise / 100):
        missed.append("predictions are further off than 10%")
    tops = {
        kind: round(float(np.mean([run[kind]["test_top1_pct"] for run in runs])), 2) for kind in ("latency", "uniform")
    }
    plain = [
        {**run, **{k: {n: v for n, v in run[k].items() if n != "correct"} for k in ("latency", "uniform")}}
        for run in runs
    ]
    return {
        "top1_pct": tops,
        "gain_points": round(-drop.points, 2),
        "gain_ci_points": [round(-drop.ci_points[1], 2), round(-drop.ci_points[0], 2)],
        "seeds": len(runs),
        "uniform_is_faster_by": [run["side_by_side"]["uniform_is_faster_by"] for run in runs],
        "median_error_of_unseen": unseen["median_error"],
        "unseen": unseen["networks"],
        "errors_of_chosen": [round(error, 4) for error in chosen],
        "noise_floor_pct": noise,
        "missed": missed,
        "runs": plain,
    }


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2]))
