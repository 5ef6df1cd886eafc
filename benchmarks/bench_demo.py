"""Does `slimzoo demo` do what it claims: accuracy kept, half the MACs, a quarter of the bytes, and faster?

    python benchmarks/bench_demo.py

Runs the command as a user would, then reads the models' records and the benchmark that it wrote. Exits with 4 if a bar
is missed; the figures are written either way, and beside them the report and what its first screen looks like, where
Chromium is installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import RESULTS, write_result

from compress.report.statistics import TooBusy, speed_up
from transfer.evaluation.statistics import paired_drop

BARS = {
    "fitted_top1_pct": (">=", 97.5),
    "drop_points": ("<=", 1.0),
    "macs_share": ("<=", 0.5),
    "bytes_share": ("<=", 0.25),
    "speedup_ci_low": (">", 1.3),
    "seconds": ("<=", 360),
}


CUT = "pruned-40-int8"  # which is looked at where none is good enough


def last_metrics(directory: Path) -> dict[str, Any]:
    """The accuracy and cost that the newest measuring step recorded."""
    steps = json.loads((directory / "config.json").read_text())["slimzoo"]["lineage"]
    return next(step["metrics"]["after"] for step in reversed(steps) if "test" in (step["metrics"]["after"] or {}))


def row_of(bench: dict[str, Any], model: str, runtime: str) -> dict[str, Any]:
    return next(r for r in bench["rows"] if r["model"] == model and r["runtime"] == runtime)


def shown(said: str, folder: str) -> list[str]:
    """What the command printed, without what shows that it is alive, and the way to help it."""
    lines = said.replace(folder + "/", "").splitlines()
    return [line for line in lines if not re.match(r"(.* \d+/\d+ |to help )", line)]


def keep_report(page: Path) -> None:
    """Copy the report to the results, and a picture of its first screen."""
    kept = RESULTS / "demo-report.html"
    shutil.copyfile(page, kept)
    browser = shutil.which("chromium")
    if browser is None:
        print("no chromium here: the picture of the report stays as it was")
        return
    size, picture = "--window-size=1280,1010", f"--screenshot={kept.with_suffix('.png')}"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    subprocess.run([browser, *quiet, size, picture, kept.as_uri()], check=True, capture_output=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "demo")
        began = time.monotonic()
        command = [sys.executable, "-m", "compress", "demo", "--out", str(out)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
        seconds = time.monotonic() - began
        bench, found = (json.loads((out / name).read_text("utf-8")) for name in ("bench.json", "trials.json"))
        models = {path.name: last_metrics(path) for path in sorted((out / "variants").iterdir())}
        sizes = {name: (out / "variants" / name / "model.onnx").stat().st_size for name in models}
        keep_report(out / "report.html")
        verdict = (out / "report.md").read_text().split("\n\n")[1]
        best, runtime = found["chosen"] or CUT, found["runtime"] or "onnxruntime"
        dense, chosen = models["fit"], models[best]
        drop = paired_drop(dense["test"]["correct"], chosen["test"]["correct"])
        rows = [row_of(bench, "fit", "onnxruntime"), row_of(bench, best, runtime)]
        speed = speed_up(*rows, asked=bench["settings"]["rounds"])
        if speed is None or isinstance(speed, TooBusy):
            sys.exit(f"no result: {speed or 'not measured in pairs'}")
    figures = {
        "output": shown(said, folder),
        "seconds": round(seconds, 1),
        "fitted_top1_pct": round(100 * dense["test"]["top1"], 2),
        "chosen_top1_pct": round(100 * chosen["test"]["top1"], 2),
        "test_images": dense["test"]["n"],
        "drop_points": round(drop.points, 2),
        "drop_ci_points": [round(bound, 2) for bound in drop.ci_points],
        "mcnemar_p": round(drop.mcnemar_p, 3),
        "macs_share": round(chosen["macs"] / dense["macs"], 4),
        "bytes_share": round(sizes[best] / sizes["fit"], 4),
        "chosen": best,
        "runtime": runtime,
        "onnx_bytes": sizes,
        "speedup": round(speed.value, 3),
        "speedup_ci_low": round(speed.lo, 3),
        "speedup_ci": [round(speed.lo, 3), round(speed.hi, 3)],
        "batch": bench["rows"][0]["batch"],
        "threads": bench["rows"][0]["threads"],
        "noise": bench["noise"],
        "verdict": verdict,
        "val_top1_pct": {name: round(100 * m["val"]["top1"], 2) for name, m in models.items()},
        "test_top1_pct": {name: round(100 * m["test"]["top1"], 2) for name, m in models.items()},
        "rows": bench["rows"],
    }
    compare = {">=": float.__ge__, "<=": float.__le__, ">": float.__gt__}
    missed = [name for name, (sign, bar) in BARS.items() if not compare[sign](float(figures[name]), float(bar))]
    figures["missed"] = missed
    print(write_result("demo", figures, "python benchmarks/bench_demo.py"))
    for name, (sign, bar) in BARS.items():
        print(f"{name:22} {figures[name]:>8}  wanted {sign} {bar}{'   MISSED' if name in missed else ''}")
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
