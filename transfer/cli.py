"""The commands `data check`, `fit`, `eval` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.prediction_cli import app as predict_app
from zoo.console import (
    MODEL_HELP,
    Arch,
    ClassesOption,
    Console,
    DryRun,
    Json,
    Offline,
    Out,
    Overwrite,
    PreprocessOption,
)
from zoo.errors import DataError, UsageError
from zoo.lineage import LARGEST_SEED

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A pretrained model onto your data.")

DATA_HELP = (
    "Image folder (class/*.png, or train/ val/ test/ of those), CSV or Parquet with path,label[,split], .npz with "
    "images and labels, 'digits', or 'torchvision:NAME'."
)
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
Val = Annotated[str | None, typer.Option(help="Share for validation (0.2), or a folder of its own.")]
Test = Annotated[str | None, typer.Option(help="Share for the final test (0.2, or 20%), or a folder of its own.")]
Layout = Annotated[
    str, typer.Option(help="What the folders of DATA are: parts (train, val, test), classes; auto finds out.")
]


data_app = typer.Typer(no_args_is_help=True, help="Look at a dataset before training on it.")
app.add_typer(data_app, name="data")


@data_app.command(name="check")
def check(
    data: DataArgument,
    val: Val = None,
    test: Test = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the split, as for `fit`.")] = 0,
    layout: Layout = "auto",
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the images in question: FILE.png.")] = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Find what is wrong with a dataset: unreadable files, duplicates, leaks, odd classes. Exit code 3 for errors."""
    from transfer.data.check import check_data
    from transfer.data.check_sheets import save_check_sheet
    from zoo.disk import check_file

    if sheet is not None and Path(data).resolve() in sheet.resolve().parent.parents:
        raise UsageError(f"--sheet {sheet} would be an image of the dataset: name a file outside of {data}")
    with Console(as_json=json) as console:
        if sheet is not None:
            check_file(sheet, "--sheet")
        checked = check_data(data, val=val, test=test, seed=seed, layout=layout, progress=console.progress)
        for line in checked.describe():
            console.say(line)
        if sheet is not None:
            save_check_sheet(checked, sheet)
            console.say(f"{sheet}: the images in question")
        if checked.ok:
            given = (("--val", val), ("--test", test), ("--seed", seed or None),
                     ("--layout", None if layout == "auto" else layout))  # fmt: skip
            options = [str(word) for name, value in given if value is not None for word in (name, value)]
            console.next(["slimzoo", "fit", data, *options, "--out", "mine"])
        console.document(checked.to_dict() | ({} if sheet is None else {"sheet": str(sheet)}))
    if not checked.ok:
        raise typer.Exit(DataError.exit_code)


@app.command()
def fit(
    data: DataArgument,
    out: Out,
    model: Annotated[
        str, typer.Option(help="A model of `slimzoo models`, timm:NAME or torchvision:NAME.")
    ] = "tf_efficientnet_lite0",
    method: Annotated[
        str,
        typer.Option(
            help="auto: the best by validation of prototype (class means), probe (the classifier alone) and finetune "
            "(all layers); scratch: from nothing."
        ),
    ] = "auto",
    time: Annotated[str | None, typer.Option(metavar="10m", help="How long auto may take: 90s, 10m, 1h.")] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Passes over the training images.")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the network's input, pixels.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    lr: Annotated[str | None, typer.Option(help="Peak rate of the classifier, or 'find' for a range test.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror training images.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any field of the recipe: optimizer=sgd.")
    ] = None,
    val: Val = None,
    test: Test = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Of the split, the order, augmentation and dropout.")
    ] = 0,
    layout: Layout = "auto",
    taps: Annotated[
        bool,
        typer.Option(
            "--taps/--no-taps", help="Let the classifier see several depths; without, timm opens what is written."
        ),
    ] = True,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files to DIR/tensorboard.")] = False,
    offline: Offline = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Fit a pretrained model to your images."""
    from transfer.data.contact_sheet import printable
    from transfer.data.dataset import open_data
    from transfer.data.remarks import check_readable, files_left_out, leaks_and_contradictions, where_to_look
    from transfer.fitting.start import check as check_start
    from transfer.fitting.start import checked_method, planned_start
    from transfer.fitting.step import fit as run
    from transfer.training.distributed import is_main, processes
    from transfer.training.settings import read_rate, read_seconds, read_settings
    from transfer.training.tensorboard import check_tensorboard
    from zoo.files.directory import check_free

    with processes(), Console(as_json=json, silent=not is_main()) as console:
        chosen, rate = checked_method(method), read_rate(lr)
        fields, time_s = read_settings(settings or []), read_seconds(time)
        if dry_run:
            check_free(out, overwrite=overwrite)
            check_start(model, chosen, size)
            if tensorboard:
                check_tensorboard()
            opened = open_data(data, val=val, test=test, seed=seed, layout=layout, progress=console.progress)
            check_readable(opened, console.progress)
            _, preprocess = planned_start(model, opened, chosen, size)
            remarks = [*files_left_out(opened), *leaks_and_contradictions(opened, {})]
            where = where_to_look(remarks, data, val=val, test=test, seed=seed, layout=layout)
            for line in [*opened.notes, *remarks, *where]:
                console.say(printable(line))
            sizes = ", ".join(f"{count} {part}" for part, count in opened.sizes().items())
            console.say(
                f"would run {method} of {model} on {data} ({len(opened.classes)} classes; {sizes} images) at "
                f"{preprocess.size[0]} px, into {out}"
            )
            console.document({"dry_run": True, "classes": len(opened.classes), **opened.sizes()})
            return
        fitted = run(
            data, model=model, out=out, method=chosen, epochs=epochs, size=size, batch=batch, lr=rate, flip=flip,
            settings=fields, val=val, test=test, seed=seed, layout=layout, taps=taps, time_s=time_s,
            tensorboard=tensorboard, overwrite=overwrite, progress=console.progress, tell=console.say,
        )  # fmt: skip
        after = fitted.record["metrics"]["after"]
        how = f"{model} at {fitted.config.preprocess.size[0]} px by {fitted.record['method']}"
        console.say(f"{out}: {how}, {describe_metrics(after)}")
        held_out: list[list[str | Path]] = [["slimzoo", "eval", out, data]] if {"val", "test"} & after.keys() else []
        console.next(
            *held_out,
            ["slimzoo", "predict", out, "IMAGE"],
            ["slimzoo", "prune", out, "--data", data, "--macs", "0.5", "--out", f"{out}-pruned"],
            ["slimzoo", "export", out],
        )
        console.document({"out": str(out), **fitted.record})


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="DIR", help=MODEL_HELP)],
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option(help="Write confusion, calibration and mistakes as pictures, answers as CSV, here.")
    ] = None,
    layout: Layout = "auto",
    known_only: Annotated[
        bool, typer.Option("--known-only", help="Leave out images of classes that the model does not know.")
    ] = False,
    all: Annotated[bool, typer.Option("--all", help="Measure on images that the model was trained on too.")] = False,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    offline: Offline = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure a model's accuracy on labelled images, leaving out those that it was trained on."""
    from transfer.data.contact_sheet import printable
    from transfer.data.remarks import files_left_out
    from transfer.evaluation.evaluate import evaluate as run
    from transfer.evaluation.findings import describe, describe_images, document, write_findings
    from zoo.files.adopt import adopt
    from zoo.files.directory import check_free, new_directory

    with Console(as_json=json) as console:
        model = adopt(model, arch=arch, preprocess=preprocess, classes=classes)
        if out is not None:
            check_free(out, overwrite=overwrite)
        evaluated = run(model, data, all=all, layout=layout, known_only=known_only, progress=console.progress)
        for line in [*evaluated.data.notes, *files_left_out(evaluated.data)]:
            console.say(printable(line))
        which = "all" if evaluated.part == "all" else f"the {evaluated.part}"
        console.say(f"{model} on {which} images of {data}")
        for line in describe_images(evaluated, model):
            console.say(line)
        for line in describe(evaluated.evaluation, evaluated.data.classes):
            console.say(line)
        if out is not None:
            arguments = {"model": model, "data": data, "out": str(out)}
            with new_directory(out, run={"verb": "eval", "arguments": arguments}, overwrite=overwrite) as work:
                write_findings(evaluated, work)
            console.say(f"{out}: confusion.png, reliability.png, mistakes.png, predictions.csv")
        console.document(document(evaluated) | ({} if out is None else {"out": str(out)}))


app.add_typer(predict_app)


def describe_accuracy(record: dict) -> str:  # type: ignore[type-arg]
    """ "98.1% (95% interval 96.1% to 99.0%, 360 images)"."""
    low, high = record["top1_ci"]
    return f"{record['top1']:.1%} (95% interval {low:.1%} to {high:.1%}, {record['n']} images)"


def describe_metrics(metrics: dict) -> str:  # type: ignore[type-arg]
    """One line about a step's result: accuracy on the parts that there are, parameters, MACs."""
    accuracies = [f"{part} {describe_accuracy(metrics[part])}" for part in ("val", "test") if part in metrics]
    return "; ".join([*accuracies, f"{metrics['params']:,} parameters", f"{metrics['macs'] / 1e6:.1f} M MACs"])
