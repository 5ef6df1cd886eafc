"""Does `slimzoo prune` bring the accuracy back better than torch-pruning with plain fine-tuning, in as many steps?

    python benchmarks/bench_prune.py [SEED...]

tf_efficientnet_lite0 at 64 px on emoji (Google's drawings, tested on Twitter's) and ResNet-20 on scikit-learn's digits,
to 1/2, 1/4 and 1/8 of the MACs, at most 300 steps of recovery. The data are found by SLIMZOO_DATA (default
../shared/data).

slimzoo: the whole of `prune` with every option at its default but --macs and --recover.
torch-pruning: its BasePruner over all layers at once (global), widths in multiples of 8 and at least a tenth, by the L2
norm of each group and by Taylor's criterion on the same batches; in small steps until the MACs are met, as its own
benchmarks do (one large step empties layers, which it then leaves whole). Then the model is trained on the labels, for
as many steps. BatchNorm's statistics are left or measured afresh, and frozen or learned in training: all four are tried
on the first seed, and the best by validation is taken.
scratch: what slimzoo left of the network, from He's random weights, trained as long as fit and recovery took together.
Each recovers with the same augmentation. Rows are kept as they come in results/prune.runs.json, and what is there is
not run again.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import Rows, write_result
from torch import nn
from torch_pruning_peer import cut_by_torch_pruning, plain_fine_tuning

from compress.pruning.recover import recipe_after_cut
from compress.pruning.step import prune
from compress.recovery.gradient_batches import BATCH
from transfer.data.fitted_data import open_for
from transfer.data.loader import batches
from transfer.data.parts import Pixels, read_pixels
from transfer.evaluation.measure import measure, predictor_of
from transfer.evaluation.statistics import paired_drop
from transfer.fitting.step import fit
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.classifier import reset_classifier_
from zoo.files.model_directory import LoadedModel, load_model
from zoo.models.init import he_normal_

SHARES = (0.5, 0.25, 0.125)
STEPS = 300
TASKS: dict[str, dict[str, Any]] = {
    "digits": {"model": "resnet20", "method": "scratch"},
    "emoji": {"model": "tf_efficientnet_lite0", "method": "finetune", "size": 64},
}
PEERS = ("l2", "taylor")
NOT_WORSE = -0.5  # points: the lower bound of the paired 95% interval
WAYS = ("left frozen", "left learned", "measured frozen", "measured learned")  # of the peer with BatchNorm


def main(seeds: list[int]) -> int:
    rows = Rows("prune")
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for task in TASKS:
                run(rows, task, seed, Path(folder))
    figures = _compare(rows.all)
    print(write_result("prune", figures, f"python benchmarks/bench_prune.py {' '.join(map(str, seeds))}".strip()))
    rows.finish()
    return 4 if figures["missed"] else 0


def run(rows: Rows, task: str, seed: int, folder: Path) -> None:
    """All shares and methods of one seed."""
    methods = ["slimzoo", *(f"torch-pruning {peer}" for peer in PEERS), "scratch"]
    shares = [s for s in SHARES if not all(rows.find(task=task, seed=seed, share=s, method=m) for m in methods)]
    if not shares:
        return
    dense, data = fitted(task, seed, folder)
    loaded = load_model(dense)
    config = loaded.config
    source = open_for(config, data)
    pixels = read_pixels(source, config.preprocess, None)
    epochs = STEPS // -(-len(pixels.train) // BATCH)
    if not rows.find(task=task, seed=seed, method="dense"):
        found = measure(predictor_of(loaded.model, config), loaded.model, config, pixels, None)
        keep(rows, task=task, seed=seed, share=1.0, method="dense", seconds=0.0, **figures_of(found))
    for share in shares:
        out, cell = folder / f"{task}-{seed}-{share}", {"task": task, "seed": seed, "share": share}
        began = time.monotonic()
        step = prune(dense, data=data, macs=share, recover=epochs, out=out, seed=seed)
        seconds = round(time.monotonic() - began, 1)
        if not rows.find(**cell, method="slimzoo"):
            keep(rows, **cell, method="slimzoo", seconds=seconds, **figures_of(step.record["metrics"]["after"]))
        recipe = recipe_after_cut(config, images=len(pixels.train), mirror=source.mirror, epochs=epochs, seed=seed)
        for method in methods[1:]:
            if rows.find(**cell, method=method):
                continue
            began = time.monotonic()
            if method == "scratch":
                network, extra = _scratch(load_model(out), pixels, recipe, seed), {}
            else:
                first = rows.find(task=task, share=share, method=method)
                network, extra = _peer(method, loaded, pixels, share, recipe, first and first["statistics"])
            found = measure(predictor_of(network, config), network, config, pixels, None)
            seconds = round(time.monotonic() - began, 1)
            keep(rows, **cell, method=method, seconds=seconds, **extra, **figures_of(found))


def keep(rows: Rows, **row: Any) -> None:
    rows.keep(row)
    print(*(f"{row[k]}" for k in ("task", "seed", "share", "method", "test_top1_pct", "seconds")), flush=True)


def fitted(task: str, seed: int, folder: Path) -> tuple[Path, str]:
    """The dense network, fitted unless it is there already, and the data."""
    emoji = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji").resolve()
    data, test = ("digits", None) if task == "digits" else (str(emoji / "google"), str(emoji / "twitter"))
    out = folder / f"{task}-{seed}"
    if not out.exists():
        fit(data, test=test, seed=seed, out=out, **TASKS[task])
    return out, data


def figures_of(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "macs": found["macs"],
        "params": found["params"],
        "val_top1_pct": round(100 * found["val"]["top1"], 2),
        "test_top1_pct": round(100 * found["test"]["top1"], 2),
        "correct": found["test"]["correct"],
    }


def _scratch(pruned: LoadedModel, pixels: Pixels, recovery: Recipe, seed: int) -> nn.Module:
    """The small network, from random weights, for the epochs of the fit and of recovery together."""
    torch.manual_seed(seed)
    network = copy.deepcopy(pruned.model)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    he_normal_(network, fan="out")
    reset_classifier_(network, len(pruned.config.classes or ()))
    preprocess = pruned.config.preprocess
    fitted = next(step for step in pruned.config.lineage if step["verb"] == "fit")
    recipe = Recipe.for_data(
        len(pixels.train),
        min(preprocess.size),
        classes=len(pruned.config.classes or ()),
        method="scratch",
        mirror=recovery.augment.flip,
        seed=seed,
    )
    recipe = replace(recipe, epochs=fitted["notes"]["recipe"]["epochs"] + recovery.epochs)
    return finetune(network, TrainingData(pixels.train, pixels.val, preprocess), recipe).model


def _peer(
    method: str, loaded: LoadedModel, pixels: Pixels, share: float, recovery: Recipe, decided: str | None
) -> tuple[nn.Module, dict[str, Any]]:
    """torch-pruning's cut, trained on the labels.

    Args:
        decided: which of `WAYS` was best for this cell on the first seed; None where this is the first.
    """
    cut = cut_by_torch_pruning(method.split()[1], loaded, pixels, share, recovery.seed)
    data = TrainingData(pixels.train, pixels.val, loaded.config.preprocess)
    plain = plain_fine_tuning(recovery)
    found: dict[str, tuple[float, nn.Module]] = {}
    for way in WAYS if decided is None else (decided,):
        start = copy.deepcopy(cut)
        if way.startswith("measured"):
            _measure_norms_(start, pixels, loaded, recovery.seed)
        trained = finetune(start, data, replace(plain, freeze_statistics=way.endswith("frozen")))
        assert trained.history[-1].val_top1 is not None
        found[way] = (trained.history[-1].val_top1, trained.model)
    best = max(found, key=lambda way: found[way][0])
    return found[best][1], {"statistics": best}


def _measure_norms_(model: nn.Module, pixels: Pixels, loaded: LoadedModel, seed: int) -> None:
    """EagleEye's rule (Li et al. 2020, arXiv 2007.02491, sec. 3.2): plain averages over training batches."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for indices in batches(len(pixels.train), 64, seed=seed, epoch=0)[:16]:
            model(torch.from_numpy(loaded.config.preprocess.normalize(pixels.train.pixels[indices])))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _compare(runs: list[dict[str, Any]]) -> dict[str, Any]:
    cells, missed, wins = [], [], 0
    for task in TASKS:
        dense = [run for run in runs if run["task"] == task and run["method"] == "dense"]
        for share in SHARES:
            here = [run for run in runs if run["task"] == task and run["share"] == share]
            by: dict[str, list[dict[str, Any]]] = {}
            for run in sorted(here, key=lambda run: run["seed"]):
                by.setdefault(run["method"], []).append(run)
            cell: dict[str, Any] = {"task": task, "share": share, "seeds": len(by["slimzoo"])}
            cell["dense_top1_pct"] = round(statistics.mean(run["test_top1_pct"] for run in dense), 2)
            for method, rows in by.items():
                top1 = [run["test_top1_pct"] for run in rows]
                drop = paired_drop(answers(rows), answers(by["slimzoo"]))
                cell[method] = {
                    "top1_pct": round(statistics.mean(top1), 2),
                    "top1_lowest_highest_pct": [min(top1), max(top1)],
                    "macs_share": round(
                        statistics.mean(r["macs"] / d["macs"] for r, d in zip(rows, dense, strict=True)), 4
                    ),
                    "slimzoo_gains_points": round(-drop.points, 2),
                    "slimzoo_gains_ci_points": [round(-drop.ci_points[1], 2), round(-drop.ci_points[0], 2)],
                }
            peers = [cell[f"torch-pruning {peer}"] for peer in PEERS]
            best = max(peers, key=lambda peer: float(peer["top1_pct"]))
            wins += cell["slimzoo"]["top1_pct"] > best["top1_pct"]
            if any(peer["slimzoo_gains_ci_points"][0] < NOT_WORSE for peer in peers):
                missed.append(f"{task} at {share}: may be worse than torch-pruning")
            if task == "digits" and share == 0.25 and cell["slimzoo"]["top1_pct"] < cell["dense_top1_pct"] - 1:
                missed.append("digits at 0.25: more than 1 point below the dense network")
            cells.append(cell)
    if wins < 4:
        missed.append(f"better in {wins} of 6 cells, 4 wanted")
    return {"cells": cells, "better_in": wins, "missed": missed, "runs": runs}


def answers(rows: list[dict[str, Any]]) -> str:
    return "".join(run["correct"] for run in rows)


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or list(range(6))))
