"""The commands `models` and `info`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from zoo.console import Arch, ClassesOption, Console, Json, PreprocessOption


class Sort(StrEnum):
    name = "name"
    params = "params"
    macs = "macs"


def models(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'res*'.")] = "*",
    offline: Annotated[bool, typer.Option("--offline", help="Only those whose weights are on this machine.")] = False,
    sort: Annotated[Sort, typer.Option(help="The column to sort by, smallest first.")] = Sort.name,
    json: Json = False,
) -> None:
    """List the models of the zoo."""
    from zoo.cards import brief
    from zoo.models.registry import list_models

    with Console(as_json=json) as console:
        found = [brief(name) for name in list_models(pattern)]
        if sort is not Sort.name:
            found.sort(key=lambda c: c[sort.value])
        if offline:
            found = [c for c in found if c["offline"]]
        if not found:
            what = f"{pattern!r} with weights on this machine" if offline else repr(pattern)
            console.say(f"no model matches {what}; `slimzoo models` lists all, and timm's are named timm:NAME")
        else:
            console.say(f"{'name':22} {'kind':11} {'parameters':>12} {'MACs':>11}  {'input':11}  pretrained")
        for c in found:
            weights = "offline" if c["offline"] else "download" if c["pretrained"] else "-"
            console.say(
                f"{c['name']:22} {c['kind']:11} {c['params']:>12,} {c['macs'] / 1e6:>9,.1f} M  "
                f"{_by(c['input_size']):11}  {weights}"
            )
        console.document({"models": found})


def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model of `slimzoo models`, timm:NAME, torchvision:NAME, a model directory, or a file of weights "
            "with --arch.",
        ),
    ],
    layers: Annotated[bool, typer.Option("--layers", help="The cost a layer at a time.")] = False,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the images, pixels, or length of sequences; the paper's by default."),
    ] = None,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    json: Json = False,
) -> None:
    """Show one model's card: cost, receptive field, weights, licence, paper."""
    from zoo.cards import card
    from zoo.files.adopt import adopt

    with Console(as_json=json) as console:
        c = card(adopt(model, arch=arch, preprocess=preprocess, classes=classes), size=size, layers=layers)
        if layers:
            _say_layers(console, c["layers"])
        for key, title in _TITLES.items():
            if c[key] not in (None, {}):
                console.say(f"{title:18} {_shown(key, c)}")
        if c["kind"] == "classifier" and c["name"] == c["architecture"] and ":" not in model:
            method = [] if c["pretrained"] else ["--method", "scratch"]
            console.next(["slimzoo", "fit", "digits", "--model", model, *method, "--out", model])
        console.document(c)


_TITLES = {
    "architecture": "architecture",
    "classes": "classes",
    "family": "family",
    "kind": "kind",
    "input_size": "input",
    "params": "parameters",
    "macs": "MACs",
    "other_ops": "other operations",
    "activation_bytes": "activations",
    "peak_activation_bytes": "peak activations",
    "receptive_field": "receptive field",
    "pretrained": "pretrained",
    "weights": "weights",
    "licence": "licence",
    "metrics": "metrics",
    "paper": "paper",
}


def _shown(key: str, c: dict[str, Any]) -> str:
    value = c[key]
    if key == "pretrained":
        return "no" if not value else "yes, on this machine" if c["offline"] else "yes, by download"
    if key in ("input_size", "receptive_field"):
        whole = key == "receptive_field" and c["kind"] == "classifier"
        return _by(value) + (" pixels, then the whole image" if whole else "")
    if key.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB" if value >= 1e6 else f"{value / 1e3:,.1f} kB"
    if isinstance(value, dict):
        return "; ".join(f"{name} {m['value']} ({m['kind']}: {m['source']})" for name, m in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _say_layers(console: Console, layers: list[dict[str, Any]]) -> None:
    width = max(len(layer["name"]) for layer in layers)
    console.say(
        f"{'layer':{width}} {'kind':20} {'output':>14} {'parameters':>12} {'MACs':>14} {'other ops':>12} "
        f"{'activations':>12} {'sees':>10}"
    )
    for layer in layers:
        output = "not run" if layer["output"] is None else _by(layer["output"][1:])
        sees = "-" if layer["output"] is None else _by(layer["receptive_field"] or ["all"])
        console.say(
            f"{layer['name']:{width}} {layer['kind'][:20]:20} {output:>14} {layer['params']:>12,} {layer['macs']:>14,} "
            f"{layer['other_ops']:>12,} {layer['activation_bytes'] / 1e3:>9,.1f} kB {sees:>10}"
        )
    console.say()


def _by(sizes: Any) -> str:
    return "x".join(map(str, sizes))
