"""Where a set of pretrained weights is kept: in an installed package, in a library's cache, or in this one.

An origin is data, and a look at the disk; zoo/pretrained/load.py fetches and reads it. Importing this file imports
neither torch nor torchvision nor timm, so that what there is can be listed at once.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from zoo.preprocess import Preprocess
from zoo.pretrained.library_caches import SAFETENSORS, checkpoints, hub_file


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A file inside an installed package, written by another implementation.

    Its names are the other's; its order is the architecture's, and so tensors are matched in order, each shape checked.
    """

    package: str  # as pip knows it, with the version
    module: str
    file: str
    sha256: str
    preprocess: Preprocess

    def find(self) -> Path | None:
        """The file, if it is on this machine: a look at the disk, and no import."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0], self.file)
        return path if path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Weights of torchvision or timm, whose module has the names of ours: it loads them, and they are copied.

    Their preprocessing is what the library says of them.
    """

    name: str  # "torchvision:NAME.TAG", "timm:NAME.TAG"
    file: str  # in torchvision's cache; for timm, the repository of the hub
    sha256: str | None  # of the file, or its first digits; None where the hub states it
    halves: bool = False  # torchvision's module turns ImageNet's mean and std into 0.5 and 0.5; ours takes the latter

    def find(self) -> Path | None:
        """The file, if it is on this machine: a look at the disk, and no import."""
        if self.name.startswith("timm:"):
            return hub_file(self.file, SAFETENSORS)
        path = checkpoints() / self.file
        return path if path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class Own:
    """A file of this package: float16, under the architecture's names."""

    path: Path
    sha256: str
    preprocess: Preprocess

    def find(self) -> Path | None:
        """The file, if it is on this machine."""
        return self.path if self.path.is_file() else None


Origin = Packaged | Upstream | Own
