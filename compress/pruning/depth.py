"""How deep a cut may go: the least share of the MACs with which the answers stay those of the uncut network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from transfer.data.loader import LabelledPixels, batches
from transfer.evaluation.divergence import divergence
from transfer.evaluation.measure import predictor_of
from zoo.files.model_directory import ModelConfig

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
# Nats an image, of the network that is cut and fitted, before it is trained. On images that were kept back, one seed,
# divergence and points lost: garments to 1/2 0.016, 1.1 and to 0.3 0.058, 1.2; emoji to 1/2 0.11, 0.2 and to 0.3 0.27,
# 1.3; photographs of things to 1/2 0.16, 3.8 and to 0.3 0.41, 12.3.
KEEPS = 0.05
MOST_IMAGES = 500  # to compare answers on


class HeldOut:
    """Images that a network was not trained on, and its answers to them.

    Attributes:
        images: how many.
    """

    def __init__(self, network: nn.Module, part: LabelledPixels, config: ModelConfig, *, seed: int = 0) -> None:
        some = batches(len(part), min(len(part), MOST_IMAGES), seed=seed, epoch=0)[0]
        self._pixels, self._config, self.images = part.pixels[np.sort(some)], config, len(some)
        self._expected = predictor_of(network, config).logits(self._pixels)

    def divergence_of(self, other: nn.Module) -> float:
        """In nats an image."""
        return divergence(self._expected, predictor_of(other, self._config).logits(self._pixels))


@dataclass(frozen=True)
class Depth:
    """
    Attributes:
        share: of the MACs, the least at which the answers stay, or the largest where they do at none.
        divergences: share -> nats, of those that were tried.
        images: on which.
    """

    share: float
    divergences: dict[float, float]
    images: int

    @property
    def holds(self) -> bool:
        return self.divergences[self.share] <= KEEPS

    def note(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = {f"{share:g}": round(nats, 6) for share, nats in sorted(self.divergences.items())}
        return {"share": self.share, "divergences": found, "images": self.images, "keeps": KEEPS}

    def __str__(self) -> str:
        deeper = max((share for share in self.divergences if share < self.share), default=None)
        said = (
            f"with {self.share:.0%} of the MACs the answers to {self.images} held-out images differ by "
            f"{self.divergences[self.share]:.3f} nats, {'within' if self.holds else 'more than'} the {KEEPS:g} allowed"
        )
        return said + ("" if deeper is None else f"; with {deeper:.0%} by {self.divergences[deeper]:.3f}")


def find_depth(divergence: Callable[[float], float], images: int, shares: Sequence[float] = SHARES) -> Depth:
    """Halve the ladder of shares until the last that holds is found: what is cut deeper is taken to differ more.

    Args:
        divergence: of the answers after a cut to that share.
        shares: the largest first.
    """
    low, high, found = 0, len(shares), dict[float, float]()  # all before `low` hold, none from `high` on
    while low < high:
        middle = (low + high) // 2
        found[shares[middle]] = divergence(shares[middle])
        if found[shares[middle]] <= KEEPS:
            low = middle + 1
        else:
            high = middle
    return Depth(shares[max(0, low - 1)], found, images)
