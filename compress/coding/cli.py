"""The commands `sparsify` and `cluster`; `export --coded` is in compress/cli.py, with `export`."""

from __future__ import annotations

from typing import Annotated

import typer

from transfer.cli import describe_metrics
from zoo.console import Console, DirArgument, Json, Offline, Out, Overwrite, Seed

app = typer.Typer()

DataOption = Annotated[str, typer.Option(help="The data of the fit.")]


@app.command()
def sparsify(
    directory: DirArgument,
    data: DataOption,
    out: Out,
    density: Annotated[float, typer.Option(help="Share of the weights that stay, in (0, 1].")] = 0.1,
    pattern: Annotated[str | None, typer.Option(metavar="N:M", help="N of every M weights stay: 2:4.")] = None,
    criterion: Annotated[str, typer.Option(help="lamp, magnitude or taylor.")] = "lamp",
    ranking: Annotated[str, typer.Option(help="network: one for all layers; layer: the same density in each.")] = (
        "network"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Epochs in which weights go and the others recover.")] = 12,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Make single weights zero, gradually, taught by the model as it was."""
    from compress.sparse.step import sparsify_directory as run

    with Console(as_json=json) as console:
        step = run(
            directory, data=data, out=out, density=density, pattern=pattern, criterion=criterion, ranking=ranking,
            epochs=epochs, seed=seed, overwrite=overwrite, progress=console.progress,
        )  # fmt: skip
        before, after = (step.record["metrics"][key] for key in ("before", "after"))
        console.say(f"before: {describe_metrics(before)}")
        console.say(f"after:  {describe_metrics(after)}")
        console.say(f"{out}: {after['density']:.2%} of the weights are not zero")
        console.next(["slimzoo", "cluster", out, "--data", data, "--out", f"{out}-shared"])
        console.document({"out": str(out), **step.record})


@app.command()
def cluster(
    directory: DirArgument,
    data: DataOption,
    out: Out,
    bits: Annotated[float, typer.Option(help="For each weight that is not zero, on average.")] = 4.0,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs in which the shared values are trained.")] = 4,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Let the weights of each layer share a few values, and train the values."""
    from compress.share.step import cluster as run

    with Console(as_json=json) as console:
        step = run(
            directory, data=data, out=out, bits=bits, epochs=epochs, seed=seed, overwrite=overwrite,
            progress=console.progress,
        )  # fmt: skip
        console.say(f"before: {describe_metrics(step.record['metrics']['before'])}")
        console.say(f"after:  {describe_metrics(step.record['metrics']['after'])}")
        console.say(f"{out}: " + ", ".join(f"{name} {count} values" for name, count in step.values.items()))
        console.next(["slimzoo", "export", out, "--coded"])
        console.document({"out": str(out), **step.record})
