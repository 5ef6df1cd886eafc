"""The command `cluster`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
    from compress.clustering.cluster import Allotted

app = typer.Typer()


@app.command()
def cluster(
    directory: DirArgument,
    data: DataOption,
    out: OutUnlessExplained = None,
    bits: Annotated[float, typer.Option(help="For each weight that is not zero, on average.")] = 4.0,
    bit_price: Annotated[
        float, typer.Option(min=0, help="How much further a weight may move to a value that takes fewer bits: 0.006.")
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=0, help="Epochs in which the shared values are trained.")] = 4,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    seed: Seed = 0,
    explain: Explain = False,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Let the weights of each layer share a few values, and train the values."""
    from compress.clustering import step as share
    from zoo.files.adopt import adopt

    with Console(as_json=json) as console:
        directory = adopt(directory, arch=arch, preprocess=preprocess, classes=classes)
        if explain:
            _explain(console, share.explain(directory, data=data, bits=bits, progress=console.progress))
            return
        out = needed(out)
        step = share.cluster(
            directory, data=data, out=out, bits=bits, bit_price=bit_price, epochs=epochs, seed=seed,
            overwrite=overwrite, progress=console.progress,
        )  # fmt: skip
        say_before_and_after(console, step)
        console.say(f"{out}: " + ", ".join(f"{name} {count} values" for name, count in step.record["values"].items()))
        after, before = (step.record["metrics"][when] for when in ("after", "before"))
        times = before["size_bytes"] / after["coded_bytes"]
        console.say(
            f"coded it takes {after['coded_bytes']:,} bytes, {times:.1f} times fewer than {directory}'s weights"
        )
        say_large_loss(console, step.record)
        console.next(["slimzoo", "export", out, "--coded"])
        console.document({"out": str(out), **step.record})


def _explain(console: Console, found: dict[str, Allotted]) -> None:
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
