"""The search before a cut: to which share of the MACs, and with how large images, by what it does to the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from compress.dependency.group import Grouping, Indices
from compress.pruning.allocate import Scores
from compress.pruning.budget import Cost
from compress.pruning.depth import SHARES, Depth, HeldOut, find_depth
from compress.pruning.input_size import BY_SIZE, Divergences, Sizes, find_size, side_for
from compress.pruning.make_up import MakeUp
from compress.pruning.structured import cut_channels
from transfer.evaluation.divergence import mean_nats

Allocated = Callable[[Grouping, float, Cost], Sequence[Indices]]  # what is kept, of a share of a cost


@dataclass
class Search:
    """
    Attributes:
        network: that is cut; the uncut one, or that without some blocks.
        grouping: of it.
        held: on which answers are compared.
        sizes: the network for images of several sizes.
        side: of the images, where none is searched.
        least: the cost of the narrowest network.
    """

    uncut: nn.Module
    whole_macs: float
    network: nn.Module
    grouping: Grouping
    scores: Scores
    held: HeldOut
    sizes: Sizes
    make_up: MakeUp
    allocated: Allocated
    least: Callable[[Grouping, Cost], float]
    side: int | None
    _by_size: tuple[float, ...] = (BY_SIZE[0], BY_SIZE[-1])  # what a search of the share tries
    _found: dict[tuple[float, int], Divergences] = field(default_factory=dict)

    def is_of(self, uncut: nn.Module, grouping: Grouping) -> bool:
        return uncut is self.uncut and [g.name for g in grouping.groups] == [g.name for g in self.grouping.groups]

    def depth(self, shares: Sequence[float] = SHARES) -> Depth:
        """Which of the shares of the MACs the held-out images allow."""
        cost = Cost.macs(self.grouping)
        least, most = self.least(self.grouping, cost) / self.whole_macs, 1.0
        if self.side is not None and (sized := self.sizes.at(self.network, self.grouping, self.side)) is not None:
            most = sized.most * sized.cost.total / self.whole_macs
        reached = [share for share in shares if least <= share <= most]
        reached = reached or ([most] if least <= most < 1 else list(shares[:1]))
        return find_depth(self._divergence_at, self.held.images, reached)

    def _divergence_at(self, share: float) -> float:
        """That of the better of two sizes, and of all further shares by that one's part."""
        if self.side is not None:
            return self.divergence(share, self.side)
        sides = {by_size: side_for(self.sizes.side, self._rest(share), by_size) for by_size in self._by_size}
        found = {side: self.divergence(share, side) for side in dict.fromkeys(sides.values())}
        best = min(self._by_size, key=lambda by_size: found[sides[by_size]])
        self._by_size = (best,)
        return found[sides[best]]

    def size(self, share: float) -> tuple[int, dict[int, float]]:
        """The side of the images for a cut to that share, and nats by the side of those that were tried."""
        return find_size(self.sizes.side, self._rest(share), lambda side: self.divergences(share, side))

    def _rest(self, share: float) -> float:
        """Of the MACs of the network that is cut, what size and channels may leave."""
        return min(1.0, share * self.whole_macs / self.grouping.macs)

    def divergence(self, share: float, side: int) -> float:
        """In nats an image; infinite where there is no such cut."""
        found = self.divergences(share, side)
        return float("inf") if found is None else mean_nats(found)

    def divergences(self, share: float, side: int) -> Divergences:
        """Of the answers, after a cut to that share by that size of the images and by channels."""
        if (share, side) not in self._found:
            self._found[share, side] = self._divergences(share, side)
        return self._found[share, side]

    def _divergences(self, share: float, side: int) -> Divergences:
        sized = self.sizes.at(self.network, self.grouping, side)
        if sized is None:
            return None
        by_channels = share * self.whole_macs / sized.cost.total
        if self.network is not self.uncut and side == self.sizes.side:
            by_channels = min(1.0, by_channels)  # blocks may leave less by themselves
        least = self.least(sized.grouping, sized.cost) / sized.cost.total
        if not least <= by_channels <= sized.most:
            return None
        keeps = self.allocated(sized.grouping, by_channels, sized.cost)
        pruned = cut_channels(self.network, sized.config.input_size, sized.grouping, keeps, self.scores)
        self.make_up(pruned, self.uncut, sized.config, views=False)
        return self.held.divergences_of(pruned.model, sized.config.preprocess)
