"""Smaller and faster, and what it cost."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "bench": "benchmark.harness",
    "build_report": "report.report",
    "cluster": "clustering.step",
    "demo": "demonstration",
    "distill": "distillation.step",
    "export": "deployment.export",
    "find_groups": "dependency.groups",
    "l2_norm": "pruning.importance",
    "prune": "pruning.step",
    "prune_channels": "pruning.structured",
    "quantize": "quantization.step",
    "quantize_static": "quantization.ptq",
    "share_weights": "clustering.cluster",
    "sparsify": "sparsity.step",
    "sparsify_weights": "sparsity.sparsify",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:  # PEP 562: `import compress` reaches torch on first use only
    if name not in _HOME:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    return getattr(importlib.import_module(f"compress.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
