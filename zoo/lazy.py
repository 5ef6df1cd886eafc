"""Packages whose public functions are imported on first use, also where a submodule bears a function's name."""

from __future__ import annotations

import sys
from collections.abc import Container
from types import ModuleType


def keep_functions(package: str, names: Container[str]) -> None:
    """Let no submodule hide the function of its name.

    Importing transfer/fit.py would set `transfer.fit` to the module, and `__getattr__`, which knows the function, would
    never be asked. (`from transfer.fit import Fitted` is not affected.)
    """

    class Package(ModuleType):
        def __setattr__(self, name: str, value: object) -> None:
            if not (name in names and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

    sys.modules[package].__class__ = Package
