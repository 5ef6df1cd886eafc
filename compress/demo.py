"""`slimzoo demo`: the whole way on built-in data, in the order in which one would type the commands.

fit tf_efficientnet_lite0 to digits -> prune and recover -> int8 -> ONNX -> bench -> report
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.console import Console
from zoo.directory import new_directory

DATA = "digits"
MODEL = "tf_efficientnet_lite0"
SIZE = 64
EPOCHS = 6
RECOVER = 6
MACS = 0.4  # well under half, so that the widths' rounding cannot cost the claim
MAX_DROP = 1.0  # points

STEPS = [
    f"slimzoo fit {DATA} --model {MODEL} --size {SIZE} --epochs {EPOCHS} --out OUT/finetuned",
    "slimzoo export OUT/finetuned",
    f"slimzoo prune OUT/finetuned --data {DATA} --macs {MACS} --recover {RECOVER} --out OUT/pruned",
    "slimzoo export OUT/pruned",
    f"slimzoo quantize OUT/finetuned --data {DATA} --out OUT/int8",
    f"slimzoo quantize OUT/pruned --data {DATA} --out OUT/pruned-int8",
    "slimzoo bench OUT/finetuned OUT/pruned OUT/int8 OUT/pruned-int8 --save OUT/bench.json",
    f"slimzoo report OUT --max-drop {MAX_DROP}",
]


def demo(out: str | Path, *, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Run STEPS into `out` and print the table, the report's path and the next commands.

    Returns:
        {"out", "baseline", "chosen", "met", "variants"}: what the report says.

    Raises:
        UsageError: `out` is taken.
    """
    from compress.deploy.benchmark import bench, format_rows
    from compress.deploy.export import export
    from compress.prune.step import prune
    from compress.quantize.step import quantize
    from compress.report.report import build_report
    from transfer.fit import fit

    out, console = Path(out), console or Console()
    show = console.progress
    with new_directory(out, run={"verb": "demo", "arguments": {"out": str(out)}}, overwrite=overwrite) as work:
        told = iter(enumerate(STEPS, start=1))

        def tell() -> None:
            number, command = next(told)
            console.say(f"[{number}/{len(STEPS)}] {command.replace('OUT', str(out))}")

        tell()
        fit(DATA, model=MODEL, size=SIZE, epochs=EPOCHS, out=work / "finetuned", progress=show)
        tell()
        export(work / "finetuned", progress=show)
        tell()
        prune(work / "finetuned", data=DATA, macs=MACS, recover=RECOVER, out=work / "pruned", progress=show)
        tell()
        export(work / "pruned", progress=show)
        for source, target in (("finetuned", "int8"), ("pruned", "pruned-int8")):
            tell()
            quantize(work / source, data=DATA, out=work / target, progress=show)
        tell()
        models = [work / name for name in ("finetuned", "pruned", "int8", "pruned-int8")]
        rows = bench(models, save=work / "bench.json", progress=show)
        tell()
        report = build_report(work, max_drop=MAX_DROP)
    console.say(format_rows(rows))
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
