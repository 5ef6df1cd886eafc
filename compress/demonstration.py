"""`slimzoo demo`: the whole way on built-in data, in the order in which one would type the commands.

fit tf_efficientnet_lite0 to digits -> prune and recover -> int8 -> ONNX -> bench -> report
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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
    from compress.benchmark.harness import bench
    from compress.deployment.export import export
    from compress.pruning.step import prune
    from compress.quantization.step import quantize
    from compress.report.report import build_report
    from transfer.fitting.step import fit

    out, console = Path(out), console or Console()
    show = console.progress
    check_free(out, overwrite=overwrite)
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    write_manifest(out)  # of nothing yet: the mark that --overwrite looks for
    told = iter(enumerate(STEPS, start=1))

    def tell() -> None:
        number, command = next(told)
        console.say(f"[{number}/{len(STEPS)}] {command.replace('OUT', str(out))}")

    tell()
    fit(DATA, model=MODEL, size=SIZE, epochs=EPOCHS, out=out / "finetuned", progress=show)
    tell()
    export(out / "finetuned", progress=show)
    tell()
    prune(out / "finetuned", data=DATA, macs=MACS, recover=RECOVER, out=out / "pruned", progress=show)
    tell()
    export(out / "pruned", progress=show)
    for source, target in (("finetuned", "int8"), ("pruned", "pruned-int8")):
        tell()
        quantize(out / source, data=DATA, out=out / target, progress=show)
    tell()
    models = [out / name for name in ("finetuned", "pruned", "int8", "pruned-int8")]
    rows = bench(models, save=out / "bench.json", progress=show)
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
