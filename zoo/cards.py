"""One model's card: what it costs, where its weights come from, who wrote the paper."""

from __future__ import annotations

import functools
import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.create import create_model
from zoo.errors import UsageError, first_line
from zoo.models.registry import list_models, model_entry

if TYPE_CHECKING:
    from torch import nn

# {name: [parameters, MACs]} of every registered model at its input size, so that a list needs no counting. Written by
# `python benchmarks/readme.py`; a test counts again.
COSTS = Path(__file__).with_name("costs.json")


def brief(name: str) -> dict[str, Any]:
    """A line of `slimzoo models`, for a registered name; counted only if it is not on record."""
    from zoo.pretrained.weights import WEIGHTS

    entry, record = model_entry(name), WEIGHTS.get(name)
    params, macs = _recorded().get(name) or count(name)
    return {
        "name": name,
        "family": entry.family,
        "kind": entry.kind,
        "params": params,
        "macs": macs,
        "input_size": list(entry.input_size),
        "pretrained": record is not None,
        "offline": record is not None and record.available_offline(),
    }


def card(name: str, *, size: int | None = None, layers: bool = False) -> dict[str, Any]:
    """What `slimzoo info` shows, counted now, for a registered or an upstream name, or a model directory.

    Args:
        size: side of square images in pixels, or length of a sequence; by default the paper's, a directory's own.
        layers: add "layers", a list of `zoo.cost.LayerCost` as dictionaries.

    Raises:
        UsageError: an unknown name, or a size that the model does not take.
    """
    import torch

    from zoo.files.model_directory import is_model_directory
    from zoo.pretrained import upstream
    from zoo.pretrained.upstream import upstream_weights
    from zoo.pretrained.weights import WEIGHTS

    if upstream.place_of(name) is not None or is_model_directory(Path(name)):
        return _card_of_directory(name, size, layers)
    entry = None if ":" in name else model_entry(name)
    options = _sized(entry.build, size) if entry else {}
    with torch.device("meta"):  # shapes alone
        network = create_model(name, **options)
    input_size = entry.input_size if entry else upstream.input_size_of(network)
    record = WEIGHTS.get(name) if entry else upstream_weights(name)
    return {
        "name": name,
        "architecture": name,
        "family": entry.family if entry else name.partition(":")[0],
        "kind": entry.kind if entry else "classifier",
        "classes": None,
        **_cost_of(name, network, input_size, size, layers),
        "pretrained": record is not None,
        "offline": record is not None and record.available_offline(),
        "paper": entry.paper if entry else None,
        "weights": record.source if record else None,
        "licence": record.licence if record else None,
        "metrics": {key: asdict(m) for key, m in record.metrics.items()} if record else None,
    }


def _card_of_directory(name: str, size: int | None, layers: bool) -> dict[str, Any]:
    """Make the card of a model as it stands in its directory, cut or not."""
    from zoo.files.model_directory import load_model
    from zoo.layout import is_program

    loaded = load_model(name)
    architecture = loaded.config.architecture
    entry = None if ":" in architecture or is_program(loaded.model) else model_entry(architecture)
    steps = [step["verb"] for step in loaded.config.lineage]
    return {
        "name": name,
        "architecture": architecture,
        "family": entry.family if entry else architecture.partition(":")[0],
        "kind": entry.kind if entry else "classifier",
        "classes": None if loaded.config.classes is None else len(loaded.config.classes),
        **_cost_of(name, loaded.model, loaded.config.input_size, size, layers),
        "pretrained": True,
        "offline": True,
        "paper": entry.paper if entry else None,
        "weights": f"{name}, made by {', '.join(steps)}" if steps else name,
        "licence": None,
        "metrics": None,
    }


def _cost_of(
    name: str, network: nn.Module, input_size: tuple[int, ...], size: int | None, layers: bool
) -> dict[str, Any]:
    """The card's input size and costs."""
    from zoo.cost import count_cost

    if size is not None:
        input_size = (input_size[0], size, size) if len(input_size) == 3 else (size, input_size[1])
    try:
        cost = asdict(count_cost(network, input_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(f"{name} does not take {input_size}: {first_line(error)}") from error
    if not layers:
        del cost["layers"]
    return {"input_size": list(input_size), **cost}


def count(name: str) -> tuple[int, int]:
    """Parameters and MACs of a registered model at its input size."""
    import torch

    from zoo.cost import count_cost

    entry = model_entry(name)
    with torch.device("meta"):
        cost = count_cost(create_model(name), entry.input_size)
    return cost.params, cost.macs


def write_costs() -> None:
    """Count every registered model and keep the result in `COSTS`."""
    lines = [f" {json.dumps(name)}: {json.dumps(count(name))}" for name in list_models()]
    COSTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@functools.cache
def _recorded() -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.exists() else {}
    return found


def _sized(build: Any, size: int | None) -> dict[str, Any]:
    """The builder's argument for the size of images, where it wants one."""
    takes = "image_size" in inspect.signature(build).parameters
    return {"image_size": size} if takes and size is not None else {}
