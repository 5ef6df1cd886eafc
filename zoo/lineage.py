"""One record a step of what made a model. Metrics live here and nowhere else."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

PACKAGES = ("slimzoo", "torch", "torchvision", "timm", "torch-pruning", "onnx", "onnxruntime", "numpy", "Pillow")
LARGEST_SEED = 2**63 - 1  # which PyTorch takes


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
