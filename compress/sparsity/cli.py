"""The command `sparsify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.say import DataOption, Explain, OutUnlessExplained, needed, say_before_and_after, say_large_loss
from zoo.console import (
    Arch,
    ClassesOption,
    Console,
    DirArgument,
    Json,
    Offline,
    Overwrite,
    PreprocessOption,
    Seed,
)

if TYPE_CHECKING:
    from compress.sparsity.step import Thinned

app = typer.Typer()


@app.command()
def sparsify(
    directory: DirArgument,
    data: DataOption,
    out: OutUnlessExplained = None,
    density: Annotated[
        float | None, typer.Option(help="Share of the weights that stay, in (0, 1]; 0.1 unless given.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(metavar="N:M", help="Instead: N of every M weights stay, by magnitude: 2:4.")
    ] = None,
    criterion: Annotated[str | None, typer.Option(help="lamp, magnitude or taylor; lamp unless given.")] = None,
    ranking: Annotated[
        str | None,
        typer.Option(help="network: one for all layers, unless given; layer: the same density in each."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs in which weights go and the others recover.")] = 12,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    seed: Seed = 0,
    explain: Explain = False,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Make single weights zero, gradually, taught by the model as it was."""
    from compress.sparsity import step as sparse
    from zoo.files.adopt import adopt

    with Console(as_json=json) as console:
        directory = adopt(directory, arch=arch, preprocess=preprocess, classes=classes)
        choice: dict[str, Any] = {
            "density": density, "pattern": pattern, "criterion": criterion, "ranking": ranking, "seed": seed,
        }  # fmt: skip
        if explain:
            _explain(console, sparse.explain(directory, data=data, **choice, progress=console.progress))
            return
        out = needed(out)
        step = sparse.sparsify(
            directory, data=data, out=out, **choice, epochs=epochs, overwrite=overwrite, progress=console.progress
        )
        say_before_and_after(console, step)
        console.say(f"{out}: {step.record['metrics']['after']['density']:.2%} of the weights are not zero")
        say_large_loss(console, step.record)
        console.next(["slimzoo", "cluster", out, "--data", data, "--out", f"{out}-shared"])
        console.document({"out": str(out), **step.record})


def _explain(console: Console, found: dict[str, Thinned]) -> None:
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
