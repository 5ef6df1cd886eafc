"""How long pruning takes to set up and to take one global step: our engine against torch-pruning's, in turns.

Set-up is finding all groups. A step scores every channel by its L2 norm, ranks all of them together, cuts a copy of the
network to about half of its MACs and checks that it runs (ours; torch-pruning's cuts in place and checks nothing).

    python benchmarks/bench_prune_speed.py [MODEL...] [--rounds 5] [--save]
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from record import write_result
from torch import nn

from compress.dependency.groups import find_groups
from compress.pruning.structured import prune_channels
from zoo.classifier import classifier
from zoo.create import create_model

SIZE = (3, 224, 224)
MODELS = tuple(
    (
        "resnet50 mobilenet_v2 efficientnet_lite0 densenet121 densenet201 timm:vit_tiny_patch16_224 "
        "timm:swin_tiny_patch4_window7_224 timm:mixer_b16_224"
    ).split()
)
SHARE = 0.5
RATIO = 0.3  # torch-pruning's of channels: about half of the MACs


def ours(model: nn.Module) -> dict[str, float]:
    """Seconds; a step finds the groups too, so the difference is what it adds."""
    began = time.perf_counter()
    find_groups(model, torch.empty(1, *SIZE, device="meta"))
    found = time.perf_counter()
    prune_channels(model, SIZE, macs=SHARE)
    done = time.perf_counter()
    return {"setup_s": found - began, "step_s": max(0.0, done - found - (found - began)), "both_s": done - found}


def theirs(model: nn.Module) -> dict[str, float]:
    import torch_pruning

    model = copy.deepcopy(model).eval()
    began = time.perf_counter()
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, *SIZE),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=RATIO,
        round_to=8,
        ignored_layers=[classifier(model)],
    )
    found = time.perf_counter()
    pruner.step()
    done = time.perf_counter()
    with torch.no_grad():
        model(torch.zeros(1, *SIZE))  # a step after which the model does not run is none
    return {"setup_s": found - began, "step_s": done - found, "both_s": done - began}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Both engines in turns; median, least and most seconds of each, or why one did not get through."""
    model = create_model(name).eval()
    engines: dict[str, Callable[[nn.Module], dict[str, float]]] = {"ours": ours, "torch_pruning": theirs}
    times: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for engine, run in engines.items():
            if engine in failed:
                continue
            gc.collect()  # what one left behind is not cleared away in the other's time
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    times[engine].append(run(model))
            except Exception as error:  # torch-pruning fails with errors of every kind
                failed[engine] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    row: dict[str, Any] = {"model": name}
    for engine in engines:
        row[engine] = {"failed": failed[engine]} if engine in failed else _spread(times[engine])
    if not failed:
        ratios = [t["both_s"] / o["both_s"] for o, t in zip(times["ours"], times["torch_pruning"], strict=True)]
        row["times_faster"] = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    return row


def _spread(rounds: list[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {"rounds": len(rounds)}
    for key in rounds[0]:
        values = [r[key] for r in rounds]
        found[key] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/prune_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ours(create_model("resnet20"))  # what is imported once is not timed
    rows = []
    for name in options.models:
        rows.append(measure(name, options.rounds))
        print(rows[-1], flush=True)
    if options.save:
        write_result("prune_speed", {"share": SHARE, "rows": rows}, "python benchmarks/bench_prune_speed.py --save")


if __name__ == "__main__":
    main()
