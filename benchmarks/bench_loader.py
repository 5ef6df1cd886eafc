"""Does training wait for its data? And what do the ways in which it spares a CPU bring?

    python benchmarks/bench_loader.py

tf_efficientnet_lite0, batch 32, at 96 and 224 px, all layers trained, standard augmentation. Each way is measured in
processes of its own, in turns: "inline" is what `finetune` does on a CPU, each batch made when it is needed; "ahead"
makes two ahead in a thread, as on a GPU; "freed" returns freed memory to the system, as glibc does by default;
"plain" has no other ways for small maps. "frozen" keeps BatchNorm's statistics, as few images do, and computes the
norms inside the convolutions before them; "apart" keeps them too, and computes the norms as they stand.

The machine must be quiet. The threads of GNU's OpenMP wait for each other by spinning, at the cost of whoever they wait
for if somebody else has a core, unless there are more of them than cores (a thread that works ahead has its own team):
with other programs on both of 2 cores, "inline" is several times as slow, and OMP_WAIT_POLICY=PASSIVE cures it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time

from record import write_result

WAYS = ("inline", "ahead", "freed", "plain", "frozen", "apart")
COMPARED = {"inline": ("ahead", "freed", "plain"), "frozen": ("apart",)}
SIDES, ROUNDS, STEPS = (96, 224), 3, 10
MOST_WAITING = 0.05


def one(side: int, way: str) -> dict[str, float]:
    """Train for STEPS steps, of which the first two do not count."""
    import numpy as np

    from transfer.data.loader import LabelledPixels
    from transfer.training import finetune as loop
    from transfer.training import step as stepping
    from transfer.training.recipe import Recipe
    from zoo.create import create_model
    from zoo.preprocess import Preprocess

    loop.AHEAD = {"cuda": 2, "cpu": 2 if way == "ahead" else 0}
    if way == "freed":
        loop.keep_freed_memory = lambda: None
    if way == "plain":
        stepping.CpuOperators = contextlib.nullcontext
    if way == "apart":
        stepping.frozen_norms = lambda model, images: contextlib.nullcontext()
    rng = np.random.default_rng(0)
    pixels = LabelledPixels(rng.integers(0, 256, (32 * STEPS, side, side, 3), np.uint8), rng.integers(0, 9, 32 * STEPS))
    preprocess = Preprocess(size=(side, side), mean=(0.498,) * 3, std=(0.502,) * 3)
    times, faults = [], []

    def after_step(model: object, step: int) -> None:
        times.append(time.perf_counter())
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

    model = create_model("tf_efficientnet_lite0", num_classes=9)
    recipe = Recipe(epochs=1, batch=32, freeze_statistics=way in ("frozen", "apart"))
    found = loop.finetune(model, loop.TrainingData(pixels, None, preprocess), recipe, after_step=after_step)
    steps = [after - before for before, after in itertools.pairwise(times[1:])]
    return {
        "step_ms": 1000 * statistics.median(steps),
        "waiting_pct": 100 * found.history[0].waiting_share,
        "page_faults_a_step": (faults[-1] - faults[1]) / len(steps),
    }


def _ratio(runs: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, object]:
    ratios = [round(run["step_ms"] / own["step_ms"], 3) for run, own in zip(runs, base, strict=True)]
    return {"median": statistics.median(ratios), "runs": ratios}


def main() -> int:
    figures: dict[str, dict[str, object]] = {}
    for side in SIDES:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way in WAYS:
                said = subprocess.run([sys.executable, __file__, str(side), way], capture_output=True, check=True)
                runs[way].append(json.loads(said.stdout))
                print(side, way, runs[way][-1], flush=True)
        names = runs["inline"][0]
        medians = {
            way: {name: round(statistics.median(r[name] for r in runs[way]), 1) for name in names} for way in WAYS
        }
        figures[f"{side}_px"] = {
            **medians,
            **{
                f"step_time_over_{base}": {way: _ratio(runs[way], runs[base]) for way in ways}
                for base, ways in COMPARED.items()
            },
            "waiting_pct_runs": [round(run["waiting_pct"], 2) for run in runs["inline"]],
        }
    print(write_result("loader", figures, "python benchmarks/bench_loader.py"))
    worst = max(max(figures[f"{side}_px"]["waiting_pct_runs"]) for side in SIDES)  # type: ignore[call-overload]
    return 4 if worst >= 100 * MOST_WAITING else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(int(sys.argv[1]), sys.argv[2])))
        sys.exit(0)
    sys.exit(main())
