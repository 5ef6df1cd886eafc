"""How well do probe and finetune carry over to another drawing style: emoji, trained on `google`, tested on `twitter`?

    python benchmarks/bench_emoji.py [SEED...]

9 classes, 1,906 images each, 96 px, tf_efficientnet_lite0. The data are found by SLIMZOO_DATA (default ../shared/data).
No choice is made on the test images: every setting is the default, and all of `google` is trained on (--val 0).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from record import write_result

from transfer.fit import fit
from zoo.console import Console

BARS = {"probe": 55.0, "finetune": 61.0}


def main(seeds: list[int]) -> int:
    emoji = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji")
    runs: list[dict[str, object]] = []
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        for method in BARS:
            for seed in seeds if method == "finetune" else seeds[:1]:  # the probe has no randomness
                fitted = fit(
                    emoji / "google", test=str(emoji / "twitter"), val=0.0, size=96, method=method, seed=seed,
                    out=Path(folder, f"{method}-{seed}"), progress=console.progress,
                )  # fmt: skip
                test = fitted.record["metrics"]["after"]["test"]
                run = {"method": method, "seed": seed, "top1_pct": round(100 * test["top1"], 2)}
                run |= {"top1_ci_pct": [round(100 * b, 2) for b in test["top1_ci"]], "n": test["n"]}
                runs.append(run | {"seconds": fitted.record["seconds"]})
                print(runs[-1], flush=True)
    means = {m: statistics.mean(float(str(r["top1_pct"])) for r in runs if r["method"] == m) for m in BARS}
    missed = [method for method, bar in BARS.items() if means[method] < bar]
    figures = {
        "mean_top1_pct": {m: round(v, 2) for m, v in means.items()},
        "bars_pct": BARS,
        "missed": missed,
        "runs": runs,
    }
    print(write_result("emoji", figures, f"python benchmarks/bench_emoji.py {' '.join(map(str, seeds))}".strip()))
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [0]))
