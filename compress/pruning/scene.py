"""The scene of a cut: all that a criterion or an allocation may look at before it is asked for anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from transfer.data.parts import Pixels
from zoo.preprocess import Preprocess
from zoo.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Scene:
    """
    Attributes:
        network: that is cut, as it is before this round.
        pixels: the images at the network's size; None without.
        preprocess: from them to the network's inputs.
        seed: of what is drawn.
    """

    network: nn.Module
    pixels: Pixels | None
    preprocess: Preprocess
    seed: int = 0
    progress: Progress | None = None

    def prepare(self, value: Any) -> Any:
        """A criterion or an allocation, ready to be asked."""
        prepared = getattr(value, "prepared", None)
        return value if prepared is None else prepared(self)
