"""Smaller and faster, and what it cost."""

from __future__ import annotations

import importlib
from typing import Any

from zoo.lazy import keep_functions

_HOME = {
    "bench": "deploy.benchmark",
    "build_report": "report.report",
    "cluster": "share.step",
    "demo": "demo",
    "distill": "distill.step",
    "export": "deploy.export",
    "export_coded": "coding.export",
    "find_groups": "prune.groups",
    "l2_norm": "prune.importance",
    "prune": "prune.step",
    "prune_channels": "prune.structured",
    "quantize": "quantize.step",
    "quantize_static": "quantize.ptq",
    "share_weights": "share.cluster",
    "sparsify": "sparse.step",
    "sparsify_weights": "sparse.sparsify",
}
__all__ = sorted(_HOME)
keep_functions(__name__, _HOME)


def __getattr__(name: str) -> Any:  # PEP 562: `import compress` reaches torch on first use only
    if name not in _HOME:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    return getattr(importlib.import_module(f"compress.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
