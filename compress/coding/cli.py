"""The commands `sparsify` and `cluster`; `export --coded` is in compress/cli.py, with `export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.say import Explain, OutUnlessExplained, needed, say_before_and_after
from zoo.console import Console, DirArgument, Json, Offline, Overwrite, Seed

if TYPE_CHECKING:
    from compress.share.cluster import Allotted
    from compress.sparse.step import Thinned

app = typer.Typer()

DataOption = Annotated[str, typer.Option(help="The data of the fit.")]


@app.command()
def sparsify(
    directory: DirArgument,
    data: DataOption,
    out: OutUnlessExplained = None,
    density: Annotated[float, typer.Option(help="Share of the weights that stay, in (0, 1].")] = 0.1,
    pattern: Annotated[str | None, typer.Option(metavar="N:M", help="N of every M weights stay: 2:4.")] = None,
    criterion: Annotated[str, typer.Option(help="lamp, magnitude or taylor.")] = "lamp",
    ranking: Annotated[str, typer.Option(help="network: one for all layers; layer: the same density in each.")] = (
        "network"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Epochs in which weights go and the others recover.")] = 12,
    seed: Seed = 0,
    explain: Explain = False,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Make single weights zero, gradually, taught by the model as it was."""
    from compress.sparse import step as sparse

    with Console(as_json=json) as console:
        choice: dict[str, Any] = {
            "density": density, "pattern": pattern, "criterion": criterion, "ranking": ranking, "seed": seed,
        }  # fmt: skip
        if explain:
            _explain_sparsify(console, sparse.explain(directory, data=data, **choice, progress=console.progress))
            return
        out = needed(out)
        step = sparse.sparsify_directory(
            directory, data=data, out=out, **choice, epochs=epochs, overwrite=overwrite, progress=console.progress
        )
        say_before_and_after(console, step)
        console.say(f"{out}: {step.record['metrics']['after']['density']:.2%} of the weights are not zero")
        console.next(["slimzoo", "cluster", out, "--data", data, "--out", f"{out}-shared"])
        console.document({"out": str(out), **step.record})


@app.command()
def cluster(
    directory: DirArgument,
    data: DataOption,
    out: OutUnlessExplained = None,
    bits: Annotated[float, typer.Option(help="For each weight that is not zero, on average.")] = 4.0,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs in which the shared values are trained.")] = 4,
    seed: Seed = 0,
    explain: Explain = False,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Let the weights of each layer share a few values, and train the values."""
    from compress.share import step as share

    with Console(as_json=json) as console:
        if explain:
            _explain_cluster(console, share.explain(directory, data=data, bits=bits, progress=console.progress))
            return
        out = needed(out)
        step = share.cluster(
            directory, data=data, out=out, bits=bits, epochs=epochs, seed=seed, overwrite=overwrite,
            progress=console.progress,
        )  # fmt: skip
        say_before_and_after(console, step)
        console.say(f"{out}: " + ", ".join(f"{name} {count} values" for name, count in step.record["values"].items()))
        console.next(["slimzoo", "export", out, "--coded"])
        console.document({"out": str(out), **step.record})


def _explain_sparsify(console: Console, found: dict[str, Thinned]) -> None:
    """Layer by layer; MACs and milliseconds are not named, since dense kernels multiply zeros too."""
    console.say("   weights  not zero        kept  importance   layer (all cut at once, nothing trained)")
    for name, layer in found.items():
        share = layer.kept / layer.weights
        console.say(
            f"{layer.weights:>10,} {layer.living:>9,} -> {layer.kept:>8,} {-layer.importance_lost:>11.1%}   {name}, "
            f"{share:.2%}"
        )
    kept, weights = (sum(getattr(layer, key) for layer in found.values()) for key in ("kept", "weights"))
    console.say(
        f"{kept:,} of {weights:,} weights, {kept / weights:.2%}; a coded file becomes smaller, MACs and milliseconds "
        "of dense kernels stay; nothing was written"
    )
    console.document({"layers": {name: vars(layer) for name, layer in found.items()}})


def _explain_cluster(console: Console, found: dict[str, Allotted]) -> None:
    console.say("  not zero  values      bytes  loss alone   tensor")
    for name, tensor in found.items():
        console.say(
            f"{tensor.living:>10,} {tensor.values:>7} {tensor.bits / 8:>10,.0f} {tensor.loss_rise:>+11.4f}   {name}"
        )
    living, bits = (sum(getattr(tensor, key) for tensor in found.values()) for key in ("living", "bits"))
    console.say(
        f"{bits / living:.2f} bits for each of {living:,} weights, codebooks too; places and entropy coding are not "
        "counted; MACs and milliseconds stay; nothing was written"
    )
    console.document({"tensors": {name: vars(tensor) for name, tensor in found.items()}})
