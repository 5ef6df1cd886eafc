"""The commands of compression, `bench`, `report`, `resume`, `demo`, and all of zoo's and transfer's."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import transfer.cli
import zoo.cli
from compress.clustering.cli import app as share_app
from compress.pruning.cli import app as prune_app
from compress.recovery.distillation import Distillation
from compress.say import Features, Patience, Temperature, Weight, say_before_and_after, say_large_loss
from compress.sparsity.cli import app as sparse_app
from transfer.cli import describe_metrics
from zoo.console import (
    Arch,
    ClassesOption,
    Console,
    DryRun,
    Json,
    Offline,
    Out,
    Overwrite,
    PreprocessOption,
    Seed,
)
from zoo.lineage import LARGEST_SEED

if TYPE_CHECKING:
    from compress.quantization.nearest import Nearest

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Fine-tune a vision model on a small dataset, make it small and fast, prove what that cost, ship it.",
)
app.add_typer(zoo.cli.app)
app.add_typer(transfer.cli.app)
app.add_typer(prune_app)
app.add_typer(sparse_app)
app.add_typer(share_app)


Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model directory, timm:NAME, torchvision:NAME, a float32 .onnx file, or a file of weights with --arch.",
    ),
]


@app.command()
def distill(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="A model directory, or the name of a model.")],
    teacher: Annotated[str, typer.Option(metavar="DIR", help="The model directory to learn from.")],
    data: Annotated[str, typer.Option(help="The data of the teacher's fit.")],
    out: Out,
    epochs: Annotated[int | None, typer.Option(min=0, help="Passes over the training images.")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the input of a student that is a name.")] = None,
    temperature: Temperature = Distillation.temperature,
    weight: Weight = Distillation.weight,
    features: Features = 0.0,
    patience: Patience = 0,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Train a small model on the answers of a better one."""
    from compress.distillation.step import distill as run
    from zoo.files.adopt import adopt_all

    with Console(as_json=json) as console:
        student, teacher = adopt_all([student, teacher], arch=arch, preprocess=preprocess, classes=classes)
        step = run(
            student, teacher=teacher, data=data, out=out, epochs=epochs, size=size, temperature=temperature,
            weight=weight, features=features, patience=patience, seed=seed, overwrite=overwrite,
            progress=console.progress,
        )  # fmt: skip
        teacher_metrics, after = step.record["teacher"], step.record["metrics"]["after"]
        console.say(f"teacher: {describe_metrics(teacher_metrics)}")
        console.say(f"student: {describe_metrics(after)}")
        shares = [after[key] / teacher_metrics[key] for key in ("macs", "params")]
        console.say(f"{out}: {shares[0]:.1%} of its teacher's MACs, {shares[1]:.1%} of the parameters")
        say_large_loss(console, step.record)
        console.next(["slimzoo", "export", out], ["slimzoo", "bench", teacher, out])
        console.document({"out": str(out), **step.record})


@app.command()
def quantize(
    directory: Source,
    data: Annotated[
        str,
        typer.Option(help="The data of the fit; training images calibrate. Other images will do, unmeasured."),
    ],
    out: Out,
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="int8; int8-dynamic, for matrix products and LSTMs, ranges found at run time; fp16; or bf16, stored "
            "in half the bytes and computed in float.",
        ),
    ] = "int8",
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, help="Points of validation accuracy that may be lost; float layers see to it."),
    ] = None,
    ranges: Annotated[
        str,
        typer.Option(help="Of activations: minmax, percentile or mse; auto takes what is nearest to the float model."),
    ] = "auto",
    bits: Annotated[int, typer.Option(min=2, max=8, help="Of the weights; with 4 the file halves again.")] = 8,
    epochs: Annotated[
        int, typer.Option(min=0, help="Of training with rounded weights and activations; needs the extra qat.")
    ] = 0,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="A layer that stays in float; can be given again.")
    ] = None,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the choice of calibration images.")] = 0,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Make an int8 ONNX model, calibrated on training images, or one in another format."""
    from compress.quantization.converted import Converted
    from compress.quantization.ptq import without_int8
    from compress.quantization.step import quantize as run
    from zoo.files.adopt import adopt_but_onnx

    with Console(as_json=json) as console:
        directory, preprocess, classes = adopt_but_onnx(directory, arch, preprocess, classes)
        step = run(
            directory, data=data, out=out, to=to, max_drop=max_drop, ranges=ranges, bits=bits, epochs=epochs,
            keep=keep or (), preprocess=preprocess, classes=classes, seed=seed, overwrite=overwrite,
            progress=console.progress,
        )  # fmt: skip
        _say_changes(console, directory, step.record)
        say_before_and_after(console, step)
        size = step.record["metrics"]["after"]["size_bytes"]
        if step.quantized.kept:
            console.say(f"in float: {', '.join(step.quantized.kept)}")
        said = str(step.found) if isinstance(step.found, Converted) else _said_of_int8(step.found, bits)
        console.say(f"{out}: {said}; {size / 1e6:.2f} MB")
        if not isinstance(step.found, Converted) and (floats := without_int8(step.found.exact)):
            console.say(floats)
        parity = step.record["parity"]
        if why := step.record["unmeasured"]:
            console.say(f"accuracy is not measured: {why}")
            console.say(f"its answers diverge from the float model's by {step.divergence:.2g} nats an image")
        console.say(f"of {parity['n']} images {len(parity['flips'])} get another answer than from the float model")
        say_large_loss(console, step.record)
        console.next(["slimzoo", "bench", directory, out], ["python", out / "deploy" / "infer.py", "IMAGE"])
        console.document({"out": str(out), **step.record})


def _said_of_int8(found: Nearest, bits: int) -> str:
    made = found.quantized
    why = ", since this processor saturates on 8" if made.scheme.bits < bits else ""
    changes = "".join(f", {change}" for change in found.taken)
    share = f"{made.int8_layers} of {made.layers} layers, {made.int8_macs:.1%} of the MACs, run in int8"
    return f"{share}; {made.scheme}{why}; {made.ranges} ranges{changes}"


@app.command()
def export(
    directory: Source,
    out: Annotated[
        Path | None, typer.Option(help="A new model directory; for a MODEL that is no directory itself.")
    ] = None,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    coded: Annotated[
        bool, typer.Option("--coded", help="Write DIR/model.slim instead: all of the model in few bytes.")
    ] = False,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Write DIR/model.onnx: pixels in, probabilities out, class names inside; and DIR/deploy/, which runs anywhere."""
    from compress.deployment.export import export as run
    from zoo.errors import UsageError
    from zoo.files.adopt import adopt_but_onnx

    with Console(as_json=json) as console:
        directory, preprocess, classes = adopt_but_onnx(directory, arch, preprocess, classes)
        if coded:
            if out or preprocess or classes:
                raise UsageError("--coded adds model.slim to a model directory: it takes no --out and no --preprocess")
            _export_coded(console, directory)
            return
        record = run(
            directory, out=out, preprocess=preprocess, classes=classes, overwrite=overwrite, progress=console.progress
        )
        _say_changes(console, directory, record)
        parity = record["parity"]
        whole = directory if out is None else out
        path = Path(whole, "model.onnx")
        size = record["metrics"]["after"]["size_bytes"]
        console.say(
            f"{path}: {size / 1e6:.2f} MB; on {parity['n']} {parity['images']} images the logits differ by "
            f"at most {parity['max_abs']:.1e} (their standard deviation is {parity['logits_std']:.2f}), "
            f"top-1 agrees on {parity['top1_agreement']:.1%}"
        )
        console.next(["python", Path(whole, "deploy", "infer.py"), "IMAGE"], ["slimzoo", "bench", whole])
        console.document({"out": str(path), **record})


def _say_changes(console: Console, source: str, record: dict[str, Any]) -> None:
    """What had to be changed of a network from elsewhere."""
    for change in record.get("changes", ()):
        console.say(f"{source}: {change}")


def _export_coded(console: Console, directory: str) -> None:
    from compress.deployment.coded import export_coded
    from zoo.files.model_directory import CODED

    record = export_coded(directory, progress=console.progress)
    path = Path(directory, CODED)
    before, after = (record["metrics"][key]["size_bytes"] for key in ("before", "after"))
    console.say(f"{path}: {after:,} bytes, {before / after:.1f} times smaller than the weights; every bit is the same")
    console.next(["slimzoo", "predict", path, "IMAGE"])
    console.document({"out": str(path), **record})


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(metavar="DIR_OR_ONNX...", help="Model directories or .onnx files.")],
    save: Annotated[Path | None, typer.Option(help="Write all rounds and settings to this JSON file.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each runtime.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.")] = 15,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, torch, torch-compile or torch-cuda; "
            "can be given again. [default: what the model is meant for]",
        ),
    ] = None,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and size, each runtime in a process of its own, interleaved."""
    from compress.benchmark.harness import bench as run
    from compress.benchmark.harness import format_rows
    from zoo.errors import SlimzooError, UsageError
    from zoo.files.adopt import adopt_all
    from zoo.pretrained.upstream import is_upstream, place_of

    absent = [m for m in models if not is_upstream(m) and place_of(m) is None and not Path(m).exists()]
    if absent:
        raise UsageError(
            f"{absent[0]} does not exist; wanted model directories, .onnx files, timm:NAME or torchvision:NAME"
        )
    with Console(as_json=json) as console:
        models = adopt_all(models, arch=arch, preprocess=preprocess, classes=classes)
        result = run(
            models, runtimes=runtime, threads=threads, batch=batch, rounds=rounds, save=save, progress=console.progress
        )
        console.say(format_rows(result))
        console.document(result)
        if all(row["median_ms"] is None for row in result["rows"]):
            raise SlimzooError("nothing could be measured: " + "; ".join({row["reason"]: 0 for row in result["rows"]}))


@app.command()
def report(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A directory that holds model directories and bench.json.")
    ],
    max_drop: Annotated[
        float, typer.Option(min=0, help="Points of validation accuracy that the chosen model may lose.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Write OUT/report.md and OUT/report.html from the models' records and OUT/bench.json."""
    from compress.report.report import build_report

    with Console(as_json=json) as console:
        built = build_report(out, max_drop=max_drop)
        console.say(f"{out / 'report.html'}\n{out / 'report.md'}")
        console.document({"out": str(out), "baseline": built.baseline, "chosen": built.chosen})


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The output directory of an interrupted run.")],
    json: Json = False,
) -> None:
    """Continue an interrupted step that trains; it ends as if it had never been interrupted."""
    from compress.clustering.step import cluster
    from compress.distillation.step import distill as distill_step
    from compress.pruning.step import prune as prune_step
    from compress.quantization.step import quantize as quantize_step
    from compress.sparsity.step import sparsify
    from transfer.fitting.step import fit as fit_step
    from transfer.training.distributed import is_main, processes, world_size
    from zoo.errors import UsageError
    from zoo.files.directory import partial_of
    from zoo.files.manifest import RUN

    with processes(), Console(as_json=json, silent=not is_main()) as console:
        out = directory.with_name(directory.name.removesuffix(".partial"))
        try:
            run = json_module.loads((partial_of(out) / RUN).read_text(encoding="utf-8"))
        except OSError as error:
            state = "is complete" if out.exists() else "does not exist"
            raise UsageError(
                f"{out} {state} and {partial_of(out)} holds no interrupted run: nothing to resume"
            ) from error
        steps: dict[str, tuple[Callable[..., Any], str]] = {  # and the name of its first argument
            "fit": (partial(fit_step, tell=console.say), "data"),
            "prune": (partial(prune_step, tell=console.say), "directory"),
            "distill": (distill_step, "student"),
            "sparsify": (sparsify, "directory"),
            "cluster": (cluster, "directory"),
            "quantize": (quantize_step, "directory"),
        }
        if run["verb"] not in steps:
            raise UsageError(f"`{run['verb']}` keeps no checkpoints; run it again with --overwrite")
        if run["verb"] != "fit" and world_size() > 1:
            raise UsageError(f"`{run['verb']}` runs in one process: resume it without the launcher")
        verb, first = steps[run["verb"]]
        arguments = {**run["arguments"], "out": str(out)}  # DIR may be named from elsewhere now
        step = verb(arguments.pop(first), **arguments, resume=True, progress=console.progress)
        console.say(f"{out}: {describe_metrics(step.record['metrics']['after'])}")
        say_large_loss(console, step.record)
        console.document({"out": str(out), **step.record})


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the models and the report go.")] = Path("slimzoo-demo"),
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """The whole way on built-in data: fit, prune, int8, ONNX, bench, report. About 5 minutes on two cores."""
    from compress.demonstration import STEPS
    from compress.demonstration import demo as run
    from zoo.files.directory import check_free

    with Console(as_json=json) as console:
        if dry_run:
            check_free(out, overwrite=overwrite)
            console.say("\n".join(STEPS))
            console.document({"dry_run": True, "steps": STEPS})
            return
        result = run(out, overwrite=overwrite, console=console)
        console.document(result)
