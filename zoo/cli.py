"""The commands `models` and `info`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from zoo.console import Console, Json

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Architectures, their weights and their cost.")


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'res*'.")] = "*",
    json: Json = False,
) -> None:
    """List the models of the zoo."""
    from zoo.registry import list_models

    with Console(as_json=json) as console:
        cards = [card(name) for name in list_models(pattern)]
        if not cards:
            console.say(f"no model matches {pattern!r}; `slimzoo models` lists all, and timm's are named timm:NAME")
        else:
            console.say(f"{'name':24} {'family':14} {'parameters':>12} {'MACs':>9}  input      pretrained")
        for c in cards:
            channels, height, width = c["input_size"]
            console.say(
                f"{c['name']:24} {c['family']:14} {c['params']:>12,} {c['macs'] / 1e6:>7.1f} M  "
                f"{channels}x{height}x{width}".ljust(74)
                + ("offline" if c["pretrained"] else "-")
            )
        console.document({"models": cards})


@app.command()
def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of `slimzoo models`, or timm:NAME.")],
    json: Json = False,
) -> None:
    """Show one model's card."""
    with Console(as_json=json) as console:
        c = card(model)
        for key, value in c.items():
            if key != "name" and value is not None:
                console.say(f"{key:12} {_shown(value)}")
        if not model.startswith("timm:"):
            method = [] if c["pretrained"] else ["--method", "scratch"]
            console.next(["slimzoo", "fit", "digits", "--model", model, *method, "--out", model])
        console.document(c)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes, offline" if value else "no"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    if isinstance(value, dict):
        return "; ".join(f"{key} {m['value']} ({m['kind']}: {m['source']})" for key, m in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def card(name: str) -> dict[str, Any]:
    """What `models` and `info` show: name, family, params, macs (of one image at input_size), and so on."""
    from zoo import upstream
    from zoo.cost import count_macs, count_parameters
    from zoo.registry import create_model, model_entry
    from zoo.weights import WEIGHTS

    network = create_model(name)
    size: tuple[int, ...]
    if ":" in name:
        size, family, paper, weights = upstream.input_size_of(network), name.partition(":")[0], None, None
    else:
        entry = model_entry(name)
        size, family, paper, weights = entry.input_size, entry.family, entry.paper, WEIGHTS.get(name)
    return {
        "name": name,
        "family": family,
        "params": count_parameters(network),
        "macs": count_macs(network, size),
        "input_size": list(size),
        "pretrained": weights is not None,
        "paper": paper,
        "weights": None if weights is None else weights.source,
        "licence": None if weights is None else weights.licence,
        "metrics": None if weights is None else {key: asdict(m) for key, m in weights.metrics.items()},
    }
