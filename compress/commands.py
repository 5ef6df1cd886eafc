"""The commands `bench`, `report`, `resume` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.console import Arch, ClassesOption, Console, DryRun, Json, Offline, Overwrite, PreprocessOption


def bench(
    models: Annotated[list[str], typer.Argument(metavar="DIR_OR_ONNX...", help="Model directories or .onnx files.")],
    save: Annotated[Path | None, typer.Option(help="Write all rounds and settings to this JSON file.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each runtime.")] = None,
    batch: Annotated[
        list[int], typer.Option(min=1, help="Images at a time; given again, CPU and GPU are compared over it.")
    ] = [1],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=3, help="Undisturbed rounds, two to a process; more if unsure.")] = 16,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino, torch or torch-compile; on a GPU onnxruntime-cuda, onnxruntime-tensorrt, "
            "torch-cuda, torch-cuda-compile or torch-cuda-graph; can be given again. [default: what the model is meant "
            "for]",
        ),
    ] = None,
    photo: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Time the whole way from this photo to its answer; can be given again. [default: made ones of three "
            "sizes, and the median one of the model's data]",
        ),
    ] = None,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and size, and the way from a photo to its answer; all interleaved."""
    from compress.benchmark.harness import bench as run
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
            models,
            runtimes=runtime,
            threads=threads,
            batch=batch,
            rounds=rounds,
            photos=photo,
            save=save,
            progress=console.progress,
        )
        console.say(str(result))
        console.document(result)
        if all(row["median_ms"] is None for row in result["rows"]):
            raise SlimzooError("nothing could be measured: " + "; ".join({row["reason"]: 0 for row in result["rows"]}))


def report(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A directory that holds model directories and bench.json.")
    ],
    max_drop: Annotated[
        float, typer.Option(min=0, help="Points of validation accuracy that the chosen model may lose.")
    ] = 1.0,
    elsewhere: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", metavar="FILE", help="What another machine measured with deploy/bench.py or bench --save."
        ),
    ] = None,
    price_cpu: Annotated[
        float | None, typer.Option(min=0, help="Of an hour of this machine without its GPU, in any currency.")
    ] = None,
    price_gpu: Annotated[float | None, typer.Option(min=0, help="Of an hour of this machine with its GPU.")] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Show images whose answer changed, if they are still there.")
    ] = True,
    json: Json = False,
) -> None:
    """Write OUT/report.html, report.md and report.json from the models' records and OUT/bench.json."""
    from compress.report.report import build_report

    with Console(as_json=json) as console:
        built = build_report(
            out, max_drop=max_drop, elsewhere=elsewhere or (), price_cpu=price_cpu, price_gpu=price_gpu, images=images
        )
        console.say(f"{built.html}\n{built.markdown}\n{built.json}")
        console.document({"out": str(out), "baseline": built.baseline, "chosen": built.chosen})


def resume(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The output directory of an interrupted run.")],
    finish: Annotated[
        bool, typer.Option("--finish", help="Of `compress`: begin no other trial, and write the best so far.")
    ] = False,
    json: Json = False,
) -> None:
    """Continue an interrupted step that trains; it ends as if it had never been interrupted."""
    from compress.resuming import resume as run
    from transfer.fitting.command import console as speaking

    with speaking(as_json=json) as console:
        done = run(directory, finish=finish, progress=console.progress, tell=console.say)
        for line in done.in_short():
            console.say(line)
        console.document({"out": str(done.out), **done.record})
    if code := getattr(done, "exit_code", 0):
        raise typer.Exit(code)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the models and the report go.")] = Path("slimzoo-demo"),
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """The whole way on built-in data: fit, cuts, int8, what each costs, the report. About 5 minutes on two cores."""
    from compress.demonstration import demo as run
    from compress.demonstration import planned
    from zoo.files.directory import check_free

    with Console(as_json=json) as console:
        if dry_run:
            check_free(out, overwrite=overwrite)
            console.say("\n".join(planned(out)))
            console.document({"dry_run": True, "steps": planned(out)})
            return
        result = run(out, overwrite=overwrite, console=console)
        console.document(result)
