"""All of slimzoo under one name: the public functions and types of zoo, transfer and compress.

The package `slimzoo` of an installation is this folder (`package-dir` in pyproject.toml).
"""

import importlib.metadata

import compress
import transfer
import zoo
from zoo.lazy import lazily

__version__ = importlib.metadata.version("slimzoo")
HOMES = {**zoo.HOMES, **transfer.HOMES, **compress.HOMES}
__getattr__, __dir__, __all__ = lazily(__name__, HOMES)
