"""The commands `fit`, `eval` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.console import Console, DryRun, Json, Offline, Out, Overwrite

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A pretrained model onto your data.")

DATA_HELP = "Image folder (class/*.png, or train/ val/ test/ of those), CSV with path,label[,split], .npz, or 'digits'."
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]


@app.command()
def fit(
    data: DataArgument,
    out: Out,
    model: Annotated[
        str, typer.Option(help="A model of `slimzoo models`, timm:NAME or torchvision:NAME.")
    ] = "tf_efficientnet_lite0",
    method: Annotated[str, typer.Option(help="probe: train the classifier; finetune: all; scratch: from nothing.")] = (
        "finetune"
    ),
    epochs: Annotated[int | None, typer.Option(min=0, help="Passes over the training images.")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the network's input, pixels.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate of the classifier.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror training images.")] = None,
    val: Annotated[str | None, typer.Option(help="Share for validation (0.2), or a folder of its own.")] = None,
    test: Annotated[str | None, typer.Option(help="Share for the final test (0.2), or a folder of its own.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the order, augmentation and dropout.")] = 0,
    offline: Offline = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Fit a pretrained model to your images."""
    from transfer.data import open_data
    from transfer.fit import fit as run
    from transfer.start import check, checked_method
    from zoo.directory import check_free

    with Console(as_json=json) as console:
        if dry_run:
            check_free(out, overwrite=overwrite)
            check(model, checked_method(method))
            opened = open_data(data, val=val, test=test, seed=seed)
            sizes = ", ".join(f"{count} {part}" for part, count in opened.sizes().items())
            console.say(
                f"would run {method} of {model} on {data} ({len(opened.classes)} classes; {sizes} images), into {out}"
            )
            console.document({"dry_run": True, "classes": len(opened.classes), **opened.sizes()})
            return
        fitted = run(
            data, model=model, out=out, method=checked_method(method), epochs=epochs, size=size, batch=batch, lr=lr,
            flip=flip, val=val, test=test, seed=seed, overwrite=overwrite, progress=console.progress,
        )  # fmt: skip
        after = fitted.record["metrics"]["after"]
        console.say(f"{out}: {model} at {fitted.config.preprocess.size[0]} px, {describe_metrics(after)}")
        console.next(
            ["slimzoo", "eval", out, data],
            ["slimzoo", "predict", out, "IMAGE"],
            ["slimzoo", "prune", out, "--data", data, "--macs", "0.5", "--out", f"{out}-pruned"],
            ["slimzoo", "export", out],
        )
        console.document({"out": str(out), **fitted.record})


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(metavar="DIR", help="A model directory or an exported .onnx file.")],
    data: DataArgument,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Measure a model's accuracy on labelled images."""
    from transfer.evaluate import evaluate as run

    with Console(as_json=json) as console:
        evaluation, opened, part = run(model, data, progress=console.progress)
        record = evaluation.record()
        console.say(f"top-1 {describe_accuracy(record)} on the {part} images of {data}")
        for name, recall in evaluation.per_class(opened.classes).items():
            console.say(f"  {name:24} {'no images' if recall is None else f'{recall:.1%}'}")
        console.document({**record, "part": part, "per_class": evaluation.per_class(opened.classes)})


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="DIR_OR_ONNX", help="A model directory or an exported .onnx file.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Classify images."""
    from transfer.predict import predict as run

    with Console(as_json=json) as console:
        predictions = run(model, images, top=top)
        for prediction in predictions:
            scores = "  ".join(f"{label} {score:.1%}" for label, score in prediction.top)
            console.say(f"{prediction.path}: {scores}")
        console.document(
            {
                "predictions": [
                    {"path": p.path, "top": [{"label": label, "score": score} for label, score in p.top]}
                    for p in predictions
                ]
            }
        )


def describe_accuracy(record: dict) -> str:  # type: ignore[type-arg]
    """ "98.1% (95% interval 96.1% to 99.0%, 360 images)"."""
    low, high = record["top1_ci"]
    return f"{record['top1']:.1%} (95% interval {low:.1%} to {high:.1%}, {record['n']} images)"


def describe_metrics(metrics: dict) -> str:  # type: ignore[type-arg]
    """One line about a step's result: accuracy on the parts that there are, parameters, MACs."""
    accuracies = [f"{part} {describe_accuracy(metrics[part])}" for part in ("val", "test") if part in metrics]
    return "; ".join([*accuracies, f"{metrics['params']:,} parameters", f"{metrics['macs'] / 1e6:.1f} M MACs"])
