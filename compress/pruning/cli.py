"""The command `prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.recovery.distillation import Distillation
from compress.say import (
    Explain,
    Features,
    OutUnlessExplained,
    Patience,
    Temperature,
    Weight,
    needed,
    say_before_and_after,
    say_large_loss,
)
from zoo.console import Arch, ClassesOption, Console, Json, Offline, Overwrite, PreprocessOption, Seed
from zoo.errors import UsageError

if TYPE_CHECKING:
    from compress.pruning.choice import Choice

app = typer.Typer()


def milliseconds(text: str | None) -> float | None:
    """ "5ms" or "5" as a number.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    try:
        return float(text.strip().lower().removesuffix("ms"))
    except ValueError as error:
        raise UsageError(f"--latency {text}: wanted milliseconds, such as 5ms") from error


@app.command()
def prune(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="A model directory, a file of weights with --arch, or, with --recover 0, timm:NAME."
        ),
    ],
    out: OutUnlessExplained = None,
    data: Annotated[str | None, typer.Option(help="The data of the fit; needed to recover.")] = None,
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-accumulates to keep, in (0, 1]; 0.5 unless given.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="MS", help="Instead: the most that an image may take in onnxruntime here: 5ms")
    ] = None,
    recover: Annotated[int, typer.Option(min=0, help="Epochs of training after the cut.")] = 8,
    criterion: Annotated[
        str | None,
        typer.Option(help="taylor, l2, l1, bn-scale or random. Unless given, taylor with --data, else l2."),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            help="cost: what loses least importance for what it saves; sensitivity: the same, by measured loss; "
            "global: one threshold for all; uniform: the same share of every group; isomorphic: one threshold for each "
            "shape of layer. Unless given, cost with taylor, else isomorphic."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Cuts, each recovered from before the next.")] = 1,
    sparse_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs before the cut in which unneeded channels shrink.")
    ] = 0,
    penalty: Annotated[str, typer.Option(help="What shrinks in them: group-lasso or bn-scale.")] = "group-lasso",
    round_to: Annotated[int, typer.Option(min=1, help="Widths become multiples of this.")] = 8,
    floor: Annotated[float, typer.Option(min=0, max=1, help="Share of its width that every group keeps.")] = 0.1,
    normalized: Annotated[
        bool, typer.Option("--normalized", help="Also cut widths that a LayerNorm or GroupNorm normalizes over.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the latency; one a physical core.")] = None,
    temperature: Temperature = Distillation.temperature,
    weight: Weight = Distillation.weight,
    features: Features = 0.0,
    patience: Patience = 0,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    seed: Seed = 0,
    explain: Explain = False,
    overwrite: Overwrite = False,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Cut the least important channels and train the accuracy back."""
    with Console(as_json=json) as console:
        from compress.pruning.choice import Choice

        choice: dict[str, Any] = {
            "macs": macs, "latency": milliseconds(latency), "criterion": criterion, "allocation": allocation,
            "rounds": rounds, "round_to": round_to, "floor": floor, "normalized": normalized, "threads": threads,
        }  # fmt: skip
        chosen = Choice(**choice)  # before torch is loaded
        from zoo.files.adopt import adopt

        directory = adopt(directory, arch=arch, preprocess=preprocess, classes=classes)
        if explain:
            _explain(console, directory, data, chosen, seed, sparse_epochs)
            return
        out = needed(out)
        from compress.pruning.step import prune as run

        step = run(
            directory, data=data, out=out, recover=recover, **choice, sparse_epochs=sparse_epochs,
            penalty=penalty, temperature=temperature, weight=weight, features=features,  # type: ignore[arg-type]
            patience=patience, seed=seed, overwrite=overwrite, progress=console.progress, tell=console.say,
        )  # fmt: skip
        say_before_and_after(console, step)
        if found := step.record.get("latency"):
            console.say(
                f"latency: {found['before_ms']:.2f} -> {found['measured_ms']:.2f} ms in onnxruntime, "
                f"{found['predicted_ms']:.2f} predicted"
            )
        before, after = (step.record["metrics"][when] for when in ("before", "after"))
        shares = [after[key] / before[key] for key in ("macs", "params")]
        console.say(f"{out}: {shares[0]:.1%} of the MACs, {shares[1]:.1%} of the parameters")
        say_large_loss(console, step.record)
        images = data or "DATA"
        console.next(
            ["slimzoo", "quantize", out, "--data", images, "--out", f"{out}-int8"],
            ["slimzoo", "export", out],
            ["slimzoo", "bench", directory, out],
        )
        console.document({"out": str(out), **step.record})


def _explain(console: Console, directory: str, data: str | None, choice: Choice, seed: int, sparse_epochs: int) -> None:
    """The first round's cut: group by group what it loses in importance and saves in MACs and milliseconds alone."""
    from compress.dependency.group import describe_whole
    from compress.pruning.budget import Cost
    from compress.pruning.latency import latency_table
    from compress.pruning.step import Cutter, grouping_of, trial_of
    from transfer.data.dataset import open_for
    from transfer.data.parts import read_pixels
    from zoo.files.model_directory import load_model

    choice.check_images(data is not None)
    loaded = load_model(directory)
    grouping = grouping_of(loaded.model, loaded.config, choice)
    told = describe_whole(grouping.whole)
    for line in told:
        console.say(line)  # first: they are why a budget cannot be met
    trial_of(loaded, choice, grouping)
    pixels = None
    if data is not None:
        source = open_for(loaded.config, data)
        pixels = read_pixels(source, loaded.config.preprocess, console.progress)
    cutter = Cutter(loaded, pixels, choice, seed=seed, progress=console.progress)
    pruned = cutter.cut(loaded.model)
    for line in pruned.notes:
        if line not in told:
            console.say(line)
    table = latency_table(
        loaded.model, loaded.config.input_size, pruned.grouping, threads=choice.threads, round_to=choice.round_to,
        floor=choice.floor, progress=console.progress,
    )  # fmt: skip
    keeps = [cut.keep for cut in pruned.cuts]
    saved_macs = Cost.macs(pruned.grouping).saved_alone(keeps)
    saved_ms = table.cost.saved_alone(keeps)
    when = f"the first of {choice.rounds} rounds" if choice.rounds > 1 else ""
    when += (" as the model is before sparse training" if when else "before sparse training") if sparse_epochs else ""
    if when:
        console.say(f"shown is {when}")
    console.say(" width    kept  importance      MACs        ms   group (each cut alone)")
    rows: list[dict[str, Any]] = []
    for cut, macs, ms in zip(pruned.cuts, saved_macs, saved_ms, strict=True):
        console.say(
            f"{cut.group.width:>6} -> {len(cut.keep):<5} {-cut.lost:>9.1%} {-macs / pruned.macs_before:>9.1%} "
            f"{-ms:>9.3f}   {cut.group}"
        )
        rows.append(
            {
                "group": cut.group.name, "kind": cut.group.kind, "width": cut.group.width, "keep": len(cut.keep),
                "importance_lost": cut.lost, "macs_saved": macs, "ms_saved": ms,
            }
        )  # fmt: skip
    before_ms, after_ms = float(table.ms[0]), table.cost.after(keeps)
    console.say(
        f"MACs {pruned.macs_before:,} -> {pruned.macs_after:,}; about {before_ms:.2f} -> {after_ms:.2f} ms in "
        "onnxruntime; nothing was written"
    )
    console.document(
        {
            "macs_before": pruned.macs_before, "macs_after": pruned.macs_after, "ms_before": before_ms,
            "ms_after": after_ms, "cuts": rows, "whole": pruned.whole,
        }
    )  # fmt: skip
