"""A smaller input: what part of a budget the size of the images meets, and what part the channels.

Where few images are there to teach it, a pretrained network gives up size before channels. EfficientNet-Lite0, fitted
to 99 photographs of things and not trained after the cut, one seed; accuracy on 342 others (85.4% before) and the
divergence of its answers to them from the uncut network's, by the images' side; channels meet the rest:

    MACs   224 px         208            192            176            160            144            128
    1/2    79.8% 0.163    81.3% 0.135    82.5% 0.091    83.0% 0.084    -              -              -
    3/10   69.6% 0.449    71.3% 0.446    74.3% 0.260    78.1% 0.228    80.1% 0.194    81.3% 0.179    77.2% 0.279

Tan and Le 2019 (EfficientNet, arXiv 1905.11946, sec. 3.3) scale width, depth and size together; Han et al. 2020
(TinyNets, arXiv 2010.14819, sec. 3.2) find size to be worth more than width in small networks. How much goes by size is
tried, by what it does to the answers; see `Cutter`.

The classifier is fitted to the size: pooled features of a smaller map are others (Touvron et al. 2019, FixRes, arXiv
1906.06423, sec. 3.2). Without it, at 144 px and 3/10 of the MACs of a network of 122 photographs, 0.227 for 0.147.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.dependency.group import Grouping
from compress.dependency.groups import find_groups
from compress.pruning.budget import Cost
from compress.pruning.reconstruct import fit_
from compress.pruning.settings import Choice
from transfer.data.loader import LabelledPixels
from transfer.evaluation.divergence import clearly_less, mean_nats
from zoo.classifier import classifier, features, has_classifier
from zoo.errors import UsageError, argument
from zoo.files.model_directory import ModelConfig
from zoo.ghost import ghost_of
from zoo.preprocess import Preprocess

BY_SIZE = (0.7, 0.9, 0.5, 0.0)  # parts of the logarithm of the share, in the order in which they are tried
STEPS = 28  # in which a side is made smaller: of 8 pixels at 224
MOST_CHANNELS = 0.95  # of the MACs are left by the channels where images are smaller, or it would be no cut
FIT_IMAGES = 256  # that a classifier is fitted to, at most
AT_ONCE = 8  # images, whose feature maps stay in a CPU's cache


def side_step(side: int) -> int:
    """By how many pixels that side is made smaller at a time."""
    return max(2, 2 * round(side / (2 * STEPS)))


def side_for(side: int, share: float, by_size: float) -> int:
    """The side, no larger, at which convolutions keep share ** by_size of their MACs."""
    step = side_step(side)
    return min(side, max(step, step * round(side * math.pow(share, by_size / 2) / step)))


def grouping_of(network: nn.Module, config: ModelConfig, choice: Choice) -> Grouping:
    return find_groups(network, torch.empty(1, *config.input_size, device="meta"), normalized=choice.normalized)


@dataclass(frozen=True)
class Sized:
    """A network for images of some size, not cut yet.

    Attributes:
        most: of the cost, that channels may leave.
    """

    config: ModelConfig
    grouping: Grouping
    cost: Cost
    most: float


class Sizes:
    """A network for images of several sizes.

    Args:
        own: of the network at its own size.

    Attributes:
        side: its own, in pixels.
        may_change: whether there can be others: its images are square pictures.
    """

    def __init__(self, own: ModelConfig, choice: Choice) -> None:
        self._own, self._choice, self.side = own, choice, own.preprocess.size[0]
        self.may_change = own.preprocess.size == (self.side, self.side) and not own.preprocess.is_prepared
        self._found: dict[tuple[int, int], Sized | None] = {}  # by side, and by how many groups are cut

    def at(self, network: nn.Module, grouping: Grouping, side: int) -> Sized | None:
        """That of a side; None where the network does not take it, or other channels would go together then.

        Args:
            grouping: of the network at its own size; what stays whole there stays so.
        """
        if side == self.side:
            return Sized(self._own, grouping, Cost.macs(grouping), 1.0)
        key = side, len(grouping.groups)
        if key not in self._found:
            config = replace(self._own, preprocess=self._own.preprocess.at(side))
            self._found[key] = self._resized(network, grouping, config)
        return self._found[key]

    def check(self, network: nn.Module) -> None:
        """Refuse a size that was asked for, before any image is read.

        Raises:
            UsageError: it is larger than its own, or the network takes none of it.
        """
        side = self._choice.size
        if side is None or side == self.side:
            return
        given, whole = argument("size", side), grouping_of(network, self._own, self._choice)
        if side > self.side:
            raise UsageError(f"{given}: larger than the network's own {self.side} px; wanted at most that")
        if not self.may_change or self.at(network, whole, side) is None:
            raise UsageError(f"{given}: the network takes images of {self.side} px alone; leave it out")

    def _resized(self, network: nn.Module, grouping: Grouping, config: ModelConfig) -> Sized | None:
        if not takes(network, config.input_size):
            return None
        found, cut = grouping_of(network, config, self._choice), {group.name for group in grouping.groups}
        found = found.without({g.name: grouping.whole.get(g.name, "") for g in found.groups if g.name not in cut})
        if [(g.name, g.width) for g in found.groups] != [(g.name, g.width) for g in grouping.groups]:
            return None
        return Sized(config, found, Cost.macs(found), MOST_CHANNELS)


Divergences = NDArray[np.float64] | None  # (images,) in nats; None where there is no such cut


def find_size(side: int, share: float, divergences: Callable[[int], Divergences]) -> tuple[int, dict[int, float]]:
    """The side of the images, and nats by the side of those that were tried: at most four.

    The usual part of the share, unless a neighbour is clearly better.

    Args:
        side: of the uncut network's images.
        share: of the MACs.
        divergences: of the answers after a cut to that share with images of so many pixels.
    """
    tried = dict[int, Divergences]()

    def of(by_size: float) -> Divergences:
        at = side_for(side, share, by_size)
        if at not in tried:
            tried[at] = divergences(at)
        return tried[at]

    usual, more, less, none = BY_SIZE
    best = usual
    if _less(of(more), of(usual)):
        best = more
    elif _less(of(less), of(usual)):
        best = none if _less(of(none), of(less)) else less
    found = {at: mean_nats(nats) for at, nats in tried.items() if nats is not None}
    return side_for(side, share, best) if found else side, found


def _less(some: Divergences, others: Divergences) -> bool:
    return some is not None and (others is None or clearly_less(some, others))


def takes(network: nn.Module, input_size: tuple[int, int, int]) -> bool:
    """Whether the network gives the same answers' shape for images (C, H, W); only shapes are computed."""
    try:
        with torch.no_grad():
            answers = ghost_of(network).eval()(torch.empty(1, *input_size, device="meta"))
    except Exception:  # whatever a forward that wants another size says
        return False
    return has_classifier(network) and tuple(answers.shape) == (1, len(classifier(network).weight))


def resized(part: LabelledPixels, preprocess: Preprocess) -> LabelledPixels:
    """Images that were brought to a network's size, at that of another, by its own rule for pixels."""
    if part.pixels.shape[1:3] == preprocess.size:
        return part
    whole = replace(preprocess, mode="squash", resize_to=None)
    pixels = np.stack([whole.resize(_picture(image)) for image in part.pixels])
    return LabelledPixels(pixels, part.labels, part.keys, groups=part.groups)


def _picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey ones without their last dimension."""
    return image[..., 0] if image.shape[2] == 1 else image


@torch.no_grad()
def fit_classifier_(smaller: nn.Module, inputs: Tensor, answers: Tensor) -> None:
    """Fit the last layer, at a smaller size of the images, to the uncut network's answers at its own.

    Nothing changes where that layer's outputs are not the answers, as behind a head that averages two.

    Args:
        smaller: in eval mode.
        inputs: (N, C, H, W).
        answers: (N, K) of the uncut network to the same images at its own size.
    """
    layer, first = classifier(smaller), inputs[:AT_ONCE]
    seen = torch.cat([features(smaller, some) for some in torch.split(inputs, AT_ONCE)])
    if not isinstance(layer, nn.Linear) or seen.shape[1] != layer.in_features:
        return
    if not torch.equal(layer(seen[: len(first)]), smaller(first)):
        return
    fit_(layer, seen, answers)


@dataclass(frozen=True)
class InputSize:
    """
    Attributes:
        before, side: of the images, in pixels.
        by_size, by_channels: shares of the MACs that each leaves.
        divergences: side -> nats, of those that were tried.
        images: on which.
    """

    before: int
    side: int
    by_size: float
    by_channels: float
    divergences: dict[int, float]
    images: int

    def note(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = {str(side): round(nats, 6) for side, nats in sorted(self.divergences.items())}
        return {
            "before": self.before,
            "side": self.side,
            "by_size": round(self.by_size, 4),
            "by_channels": round(self.by_channels, 4),
            "divergences": found,
            "images": self.images,
            "said": str(self),
        }

    def __str__(self) -> str:
        if self.side == self.before:
            said = f"the images stay at {self.side} px"
        else:
            said = f"images of {self.side} px instead of {self.before} leave {self.by_size:.0%} of the MACs, and "
            said += "no channel is cut" if self.by_channels >= 1 else f"channels {self.by_channels:.0%} of those"
        tried = ", ".join(f"at {side} px {nats:.3f}" for side, nats in sorted(self.divergences.items(), reverse=True))
        return said + (f": answers to {self.images} held-out images differ by so many nats: {tried}" if tried else "")
