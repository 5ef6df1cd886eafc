"""`slimzoo demo`: the whole way on built-in data, in the order in which one would type the commands.

fit tf_efficientnet_lite0 to digits -> prune and recover -> int8 -> ONNX -> bench -> report
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

from compress.report.sections import command
from compress.verbs import STEPS
from zoo.console import Console
from zoo.files.directory import check_free
from zoo.files.manifest import write_manifest

DATA = "digits"
MODEL = "tf_efficientnet_lite0"
SIZE = 64
EPOCHS = 6
RECOVER = 6
MACS = 0.4  # well under half, so that the widths' rounding cannot cost the claim
MAX_DROP = 1.0  # points

MODELS = ("finetuned", "pruned", "int8", "pruned-int8")
RUNS: list[tuple[str, str, dict[str, Any]]] = [  # a step's verb, its source and its arguments; files are in OUT
    ("fit", DATA, {"model": MODEL, "size": SIZE, "epochs": EPOCHS, "out": "finetuned"}),
    ("export", "finetuned", {}),
    ("prune", "finetuned", {"data": DATA, "macs": MACS, "recover": RECOVER, "out": "pruned"}),
    ("export", "pruned", {}),
    ("quantize", "finetuned", {"data": DATA, "out": "int8"}),
    ("quantize", "pruned", {"data": DATA, "out": "pruned-int8"}),
]


def planned(out: Path) -> list[str]:
    """The commands, as one would type them."""
    steps = [command({"verb": verb, "arguments": _arguments(verb, source, given, out)}) for verb, source, given in RUNS]
    bench = shlex.join(["slimzoo", "bench", *(str(out / name) for name in MODELS), "--save", str(out / "bench.json")])
    return [*steps, bench, f"slimzoo report {out} --max-drop {MAX_DROP}"]


def _arguments(verb: str, source: str, given: dict[str, Any], out: Path) -> dict[str, Any]:
    """With the source among them, and files below `out`."""
    named = {STEPS[verb].source: source, **given}
    return {name: str(out / value) if value in MODELS else value for name, value in named.items()}


def demo(out: str | Path, *, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Run the steps into `out` and print the table, the report's path and the next commands.

    Returns:
        {"out", "baseline", "chosen", "met", "variants"}: what the report says.

    Raises:
        UsageError: `out` is taken.
    """
    from compress.benchmark.harness import bench
    from compress.report.report import build_report

    out, console = Path(out), console or Console()
    show = console.progress
    check_free(out, overwrite=overwrite)
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    write_manifest(out)  # of nothing yet: the mark that --overwrite looks for
    told = iter(lines := planned(out))

    def tell() -> None:
        line = next(told)
        console.say(f"[{lines.index(line) + 1}/{len(lines)}] {line}")

    for verb, source, given in RUNS:
        tell()
        arguments = _arguments(verb, source, given, out)
        STEPS[verb].load_function()(arguments.pop(STEPS[verb].source), **arguments, progress=show)
    tell()
    rows = bench([out / name for name in MODELS], save=out / "bench.json", progress=show)
    tell()
    report = build_report(out, max_drop=MAX_DROP)
    console.say(str(rows))
    console.say()
    console.say(report.verdict)
    console.say(f"Report: {out / 'report.html'}")
    best = out / (report.chosen or "finetuned")
    console.next(
        ["slimzoo", "fit", "FOLDER", "--out", "mine"],
        ["slimzoo", "prune", "mine", "--data", "FOLDER", "--macs", "0.5", "--out", "mine-pruned"],
        ["slimzoo", "quantize", "mine-pruned", "--data", "FOLDER", "--out", "mine-int8"],
        ["slimzoo", "predict", best / "model.onnx", "IMAGE"],
    )
    return {"out": str(out), **report.to_json()}
