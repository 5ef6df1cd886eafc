"""How deep a cut may go: the least share of the MACs with which the answers stay those of the uncut network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.pruning.input_size import resized
from transfer.data.augment import NONE, Augment, augment_batch
from transfer.data.loader import LabelledPixels, batches
from transfer.evaluation.divergence import divergences, mean_nats
from transfer.evaluation.measure import predictor_of
from zoo.files.model_directory import ModelConfig
from zoo.preprocess import Preprocess

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
# Nats an image, of the network that is cut and fitted, before it is trained. On images that were kept back, one seed,
# divergence and points lost: garments to 1/2 0.016, 1.1 and to 0.3 0.058, 1.2; emoji to 1/2 0.11, 0.2 and to 0.3 0.27,
# 1.3; photographs of things to 1/2 0.16, 3.8 and to 0.3 0.41, 12.3.
KEEPS = 0.05
# To compare answers on; of few, views too. By 23 held-out photographs of things alone, images of 192 px seemed better
# than of 176 (0.076 and 0.091 nats, to half of the MACs), by their views 0.087 and 0.082, by 342 others 0.091, 0.084.
MOST_IMAGES, FEW = 500, 128


class HeldOut:
    """Images that a network was not trained on, and its answers to them.

    Args:
        augment: what makes views of them where they are few; `NONE` makes none.

    Attributes:
        images: how many.
    """

    def __init__(
        self, network: nn.Module, part: LabelledPixels, config: ModelConfig, *, augment: Augment = NONE, seed: int = 0
    ) -> None:
        some = batches(len(part), min(len(part), MOST_IMAGES), seed=seed, epoch=0)[0]
        self._config, self.images = config, len(some)
        self._own = part.take(np.sort(some))
        if not config.preprocess.is_prepared:
            self._own = _with_views(self._own, augment, seed)
        self._parts = {config.preprocess.size: self._own}  # by their size
        self._expected = predictor_of(network, config).logits(self._own.pixels)

    def divergence_of(self, other: nn.Module, preprocess: Preprocess | None = None) -> float:
        """In nats an image; `preprocess` is the other network's, where its images are smaller."""
        return mean_nats(self.divergences_of(other, preprocess))

    def divergences_of(self, other: nn.Module, preprocess: Preprocess | None = None) -> NDArray[np.float64]:
        """(images,) of each, the mean over its views."""
        config = self._config if preprocess is None else replace(self._config, preprocess=preprocess)
        size = config.preprocess.size
        if size not in self._parts:
            self._parts[size] = resized(self._own, config.preprocess)
        answers = predictor_of(other, config).logits(self._parts[size].pixels)
        found: NDArray[np.float64] = divergences(self._expected, answers).reshape(-1, self.images).mean(axis=0)
        return found


def _with_views(part: LabelledPixels, augment: Augment, seed: int) -> LabelledPixels:
    """The images, and views of them all, again and again, until there are enough."""
    pixels, places = [part.pixels], np.arange(len(part))
    floats = torch.from_numpy(np.array(part.pixels)).permute(0, 3, 1, 2).float()
    for epoch in range(1, -(-FEW // len(part)) if augment != NONE else 1):
        views = augment_batch(floats, places, augment, seed=seed, epoch=epoch)
        pixels.append(views.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return LabelledPixels(np.concatenate(pixels), np.tile(part.labels, len(pixels)))


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
