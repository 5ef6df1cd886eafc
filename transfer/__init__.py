"""A pretrained model onto your data."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "Recipe": "training.recipe",
    "evaluate": "evaluation.evaluate",
    "finetune": "training.finetune",
    "fit": "fitting.step",
    "open_data": "data.dataset",
    "predict": "prediction",
    "stratified_split": "data.split",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:  # PEP 562: `import transfer` reaches torch on first use only
    if name not in _HOME:
        raise AttributeError(f"module 'transfer' has no attribute {name!r}")
    return getattr(importlib.import_module(f"transfer.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
