"""What `compress` promises of latencies before it trains: is interpolation as good as a sum over the layers?

    python benchmarks/bench_promises.py

Networks of random widths, which neither has seen, are measured side by side with the whole network, in onnxruntime,
one image, one thread a core, and compared with what is predicted of them as shares of the whole network's time:

interpolated: what `compress` does, which knows only the share of the MACs: four uniform cuts, measured whole.
additive: what `prune --latency` does, which knows all widths: a sum over operators, each by the product of its widths,
fitted to 24 measured networks. Layers that depend on the widths of two others are the interactions that MDP adds to
tables of single layers (Sun et al. 2025, arXiv 2504.02168, sec. 3.2).

Weights do not matter to latencies: nothing is fitted to images here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from record import write_result

from compress.dependency.cut import cut_copy
from compress.dependency.groups import find_groups
from compress.plan.cuts import Cuts
from compress.plan.promises import interpolated, measured
from compress.plan.trial import Candidate
from compress.pruning.latency import latency_table, measured_ms, sampled
from transfer.data.dataset import open_data
from transfer.fitting.start import start
from zoo.cost import count_macs
from zoo.files.model_directory import LoadedModel

MODELS = {"tf_efficientnet_lite0": 96, "resnet18": 64}  # and the size of their images
UNSEEN = 12  # networks of each
AT_ONCE = 6  # that are measured side by side
CLOSE, WORST = 0.10, 0.25  # how far promises may be off, in the median and in the worst tenth


def main() -> int:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLIMZOO_CACHE"] = folder  # a table that was measured under other load is not there
        for name, side in MODELS.items():
            found[name] = errors(name, side)
            print(name, found[name], flush=True)
    missed = [
        f"{name}: {how} is off by {by['median']:.0%} in the median, {by['worst_decile']:.0%} in the worst tenth"
        for name, ways in found.items()
        for how, by in ways.items()
        if by["median"] > CLOSE or by["worst_decile"] > WORST
    ]
    print(write_result("promises", {"models": found, "missed": missed}, "python benchmarks/bench_promises.py"))
    print(*missed, sep="\n")
    return 4 if missed else 0


def errors(name: str, side: int) -> dict[str, dict[str, Any]]:
    """Of both ways, as shares of what was measured."""
    loaded = LoadedModel(*start(name, open_data("digits"), "scratch", side, None))
    model, size = loaded.model.eval(), loaded.config.input_size
    grouping = find_groups(model, torch.empty(1, *size, device="meta"))
    keeps = sampled(grouping, UNSEEN + 1, round_to=8, floor=0.1, seed=1)[1:]
    networks = [cut_copy(model, grouping, keep) for keep in keeps]

    times = list[float]()
    for first in range(0, UNSEEN, AT_ONCE):
        whole, *ms = measured_ms([model, *networks[first : first + AT_ONCE]], size)
        times += [float(each) / float(whole) for each in ms]

    shares = [count_macs(network, size) / count_macs(model, size) for network in networks]
    cuts = Cuts(loaded)
    in_float = [each for each in (*cuts.ends(), *cuts.others()) if not each[0]["int8"]]
    costs = measured(in_float, ["onnxruntime"])
    if any(each["disturbed"] for each in costs):
        sys.exit("other work disturbs this machine: try again")
    promised = interpolated(costs, shares)
    own = [promised[Candidate(share)]["latency_ms"] / promised[Candidate()]["latency_ms"] for share in shares]

    table = latency_table(model, size, grouping)
    added = [table.cost.after(keep) / float(table.ms[0]) for keep in keeps]
    return {how: _off(guessed, times) for how, guessed in (("interpolated", own), ("additive", added))}


def _off(guessed: list[float], times: list[float]) -> dict[str, Any]:
    off = np.abs(np.array(guessed) / np.array(times) - 1)
    pairs = [[round(one, 4), round(other, 4)] for one, other in zip(guessed, times, strict=True)]
    median, worst = (float(np.quantile(off, share)) for share in (0.5, 0.9))
    return {"median": median, "worst_decile": worst, "predicted_and_measured": pairs}


if __name__ == "__main__":
    sys.exit(main())
