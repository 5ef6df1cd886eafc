"""Architectures, their weights, their cost, and the files that carry them."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "create_model": "create",
    "list_models": "models.registry",
    "register_model": "models.registry",
    "Preprocess": "preprocess",
    "load_image": "image",
    "load_coded": "files.coded_file",
    "load_model": "files.model_directory",
    "save_model": "files.model_directory",
    "open_predictor": "files.predictor",
    "features": "classifier",
    "reset_classifier_": "classifier",
    "count_parameters": "cost",
    "count_macs": "cost",
    "count_cost": "cost",
    "stages": "classifier",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:  # PEP 562: `import zoo` reaches torch on first use only
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zoo.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
