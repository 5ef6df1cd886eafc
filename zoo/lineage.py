"""One record a step of what made a model. Metrics live here and nowhere else."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

PACKAGES = ("slimzoo", "torch", "torchvision", "timm", "torch-pruning", "onnx", "onnxruntime", "numpy", "Pillow")
IN_MEMORY = "in memory: "  # before the name of a model or of data that are in no file
BUILT_IN = ("digits",)  # data that are meant by the name, also where there is a file of it
LARGEST_SEED = 2**63 - 1  # which PyTorch takes
SAME_WEIGHTS = ("export",)  # steps that change nothing a metric sees


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, without importing them."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def step(
    verb: str,
    arguments: dict[str, Any],
    *,
    seed: int,
    seconds: float,
    data: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A lineage record. `before` and `after` are metrics: val, test, params, macs, size_bytes as far as known."""
    return {
        "verb": verb,
        "arguments": arguments,
        "seed": seed,
        "versions": versions(),
        "data": data,
        "seconds": round(seconds, 1),
        "metrics": {"before": before, "after": after},
        **more,
    }


def current_metrics(lineage: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds of the model now; see `current_record`."""
    return _after(current_record(lineage))


def current_record(lineage: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of the model's last step, or of that before if it only wrote the model in another form; empty if there is none.

    A step that changed the weights without measuring them leaves nothing: older figures are of another model. An export
    that is the first step made the directory, and says what there is to say.
    """
    found: Mapping[str, Any] = {}
    for found in reversed(lineage):
        if found.get("verb") not in SAME_WEIGHTS or any(_after(found).get(part) for part in ("val", "test")):
            break
    return found


def _after(record: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (record.get("metrics") or {}).get("after") or {}
    return found


def names_a_model(word: str) -> bool:
    """Whether a file or a model directory is meant, and not a network of that name, beside which a folder may lie."""
    return os.path.isfile(word) or os.path.isfile(os.path.join(word, "config.json"))


def located(source: Any) -> Any:
    """What stands in records: a path made absolute, to mean the same from everywhere; names and shares as they are.

    Of a model or of data in memory it is what they say of themselves.
    """
    if source is None or isinstance(source, int | float):
        return source
    named = str(source)
    return os.path.abspath(named) if named not in BUILT_IN and os.path.exists(named) else named
