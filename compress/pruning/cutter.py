"""The cutter: which channels of a model go, decided by a `Choice` of budget, criterion and allocation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from compress.dependency.group import Indices
from compress.dependency.groups import Grouping
from compress.dependency.verify import UnequalCutError
from compress.pruning.allocate import POWER, Allocation, Scores, allocate_by_importance, check_reachable, narrowed
from compress.pruning.blocks import BLOCKS, Shortened
from compress.pruning.budget import Cost
from compress.pruning.depth import Depth, HeldOut
from compress.pruning.importance import Importance
from compress.pruning.input_size import InputSize, Sized, Sizes, grouping_of
from compress.pruning.latency import check_within_reach, latency_table, measured_ms
from compress.pruning.make_up import MakeUp
from compress.pruning.scene import Scene
from compress.pruning.search import Search
from compress.pruning.settings import ALLOCATIONS, CRITERIA, Choice
from compress.pruning.structured import Pruned, accepted, cut_channels, scored
from compress.recovery.recipe import mirrored_as_fitted
from compress.sparsity.lineage import is_sparse
from transfer.data.augment import augment_for
from transfer.data.dataset import FEW_IMAGES
from transfer.data.parts import Pixels
from zoo.cost import count_macs
from zoo.disk import write_json
from zoo.errors import SlimzooError, UsageError
from zoo.files.model_directory import LoadedModel
from zoo.progress import Progress

LATENCY_TRIES = 4  # cuts, each measured, until one is below the milliseconds that were asked for
LATENCY_MARGIN = 0.98
HALF = 0.5  # of the MACs are kept where no held-out images say more
FEW_SHARES = (0.9, 0.7, 0.5)  # to say where a cut that is lost should have ended
DEPTH, INPUT = "depth", "input"  # in the notes


class Cutter:
    """Finds what to cut of a model, and how much of it, by a `Choice`.

    Args:
        mirror: whether mirrored images may be learned from.

    Attributes:
        config: of the network that was cut, whose images may be smaller.
        notes: of the last cut, for the lineage: what was predicted and measured of a latency, how the share of the MACs
            was found, and how much of it the size of the images meets.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        pixels: Pixels | None,
        choice: Choice,
        *,
        seed: int = 0,
        mirror: bool = False,
        progress: Progress | None = None,
    ) -> None:
        choice.check_images(pixels is not None)
        self.config, self.pixels, self.choice, self.seed, self.progress = loaded.config, pixels, choice, seed, progress
        self._own = loaded.config  # whose images are those of the uncut network
        self._views = augment_for(mirrored_as_fitted(loaded.config, mirror))
        self._make_up = None if pixels is None else MakeUp(loaded.config, pixels.train, self._views, seed=seed)
        self.notes: dict[str, Any] = {}
        self._scored: tuple[Grouping, Scores] | None = None  # for the last cut
        self._whole: float | None = None  # what the model cost before the first cut
        self._sizes = Sizes(loaded.config, choice)
        self._searched: Search | None = None
        self._held: tuple[nn.Module, HeldOut] | None = None
        self._prepared: tuple[nn.Module, Allocation] | None = None
        self._shortened = Shortened(choice.blocks, loaded.config, pixels, self.held_out)

    @property
    def said(self) -> list[str]:
        """What a person should know of the cuts."""
        return [self.notes[name]["said"] for name in (BLOCKS, DEPTH, INPUT) if name in self.notes]

    def grouping_of(self, network: nn.Module) -> Grouping:
        return grouping_of(network, self.config, self.choice)

    def cut(self, network: nn.Module, number: int = 1, *, decided: Path | None = None) -> Pruned:
        """The cut of that round, of as many as the choice has; each keeps the same share of what the last left.

        Args:
            decided: the file where the decision is kept, and read again: a run that is resumed must not measure anew.
        """
        kept = None
        if decided is not None and decided.exists():
            kept = json.loads(decided.read_text(encoding="utf-8"))
            self._whole, self.notes = kept["whole"], kept["notes"]
        short = self.shortened(network)
        grouping = grouping_of(short, self._own, self.choice)
        if kept is not None:
            keeps = [np.array(keep, dtype=np.intp) for keep in kept["keeps"]]
            grouping = grouping.without(kept["unequal"])
            sized = self._sizes.at(short, grouping, kept.get("side", self._own.preprocess.size[0]))
            assert sized is not None
            self.config = sized.config
            if "scores" in kept:
                scores = [np.array(score) for score in kept["scores"]]
            else:  # a run that an earlier version began
                scores = scored(network, grouping, self._importance(network))
            self._scored = grouping, scores
            return cut_channels(short, sized.config.input_size, sized.grouping, keeps, scores)
        scores = scored(network, grouping, self._importance(network))
        done = number / self.choice.rounds
        by = self._cut_to_macs if self.choice.latency is None else self._cut_to_latency
        pruned = accepted(lambda grouping, scores: by(network, grouping, scores, done), grouping, scores)
        unequal = {name: why for name, why in pruned.whole.items() if name not in grouping.whole}
        scores = [score for score, g in zip(scores, grouping.groups, strict=True) if g.name not in unequal]
        self._scored = grouping.without(unequal), scores
        if decided is not None:
            decided.parent.mkdir(parents=True, exist_ok=True)
            write_json(
                decided,
                {
                    "whole": self._whole,
                    "side": self.config.preprocess.size[0],
                    "notes": self.notes,
                    "unequal": unequal,
                    "keeps": [cut.keep.tolist() for cut in pruned.cuts],
                    "scores": [score.tolist() for score in scores],
                },
            )
        return pruned

    def make_up_(self, pruned: Pruned, uncut: nn.Module) -> None:
        """Fit what is left to what went, see compress/pruning/make_up.py; without images nothing can be fitted."""
        if self._make_up is not None:
            self._make_up(pruned, uncut, self.config)

    def held_out(self, network: nn.Module) -> HeldOut | None:
        """The network's answers to validation images, where there are some."""
        val = None if self.pixels is None else self.pixels.val
        if val is None:
            return None
        if self._held is None or self._held[0] is not network:
            self._held = network, HeldOut(network, val, self._own, augment=self._views, seed=self.seed)
        return self._held[1]

    def shortened(self, network: nn.Module) -> nn.Module:
        """The network without the blocks that are left out; itself, where none are."""
        return self._shortened.of(network, self.notes) if self.choice.blocks else network

    @property
    def few(self) -> bool:
        """Whether there are some images, and no more than training on them alone would make up for a cut."""
        return self.pixels is not None and len(self.pixels.train) <= FEW_IMAGES

    @property
    def _given_side(self) -> int | None:
        """The images' side where none is searched: one was asked for, they are many, or it is no single cut by MACs."""
        choice, own = self.choice, self._own
        one_cut = choice.latency is None and choice.rounds == 1
        if choice.size is None and self.few and one_cut and self._sizes.may_change and not is_sparse(own.lineage):
            return None
        return own.preprocess.size[0] if choice.size is None else choice.size

    def _search(self, network: nn.Module, grouping: Grouping, scores: Scores, held: HeldOut) -> Search:
        assert self._make_up is not None
        if self._searched is not None and self._searched.is_of(network, grouping):
            return self._searched
        self._searched = Search(
            network,
            self._whole_macs(network, grouping),
            self.shortened(network),
            grouping,
            scores,
            held,
            sizes=self._sizes,
            make_up=self._make_up,
            allocated=partial(self._allocated, network, scores),
            least=lambda grouping, cost: cost.after(self._narrowest(grouping, rounds=1)),
            side=self._given_side,
        )
        return self._searched

    def _sized_for(self, network: nn.Module, grouping: Grouping, scores: Scores, share: float) -> Sized:
        """The network for the images with which its answers change least when it is cut to that share."""
        own, held = self._own.preprocess.size[0], self.held_out(network)
        side, found = self._given_side or own, dict[int, float]()
        if held is not None and self._given_side is None:
            side, found = self._search(network, grouping, scores, held).size(share)
        sized = self._sizes.at(self.shortened(network), grouping, side)
        assert sized is not None  # as `Sizes.check` has seen
        if side != own or len(found) > 1:
            by_size, left = sized.cost.total / grouping.macs, share * self._whole_macs(network, grouping)
            images = 0 if held is None else held.images
            self.notes[INPUT] = InputSize(own, side, by_size, min(1.0, left / sized.cost.total), found, images).note()
        return sized

    def shallower(self, network: nn.Module, share: float, held: HeldOut) -> Depth | None:
        """By the same scores, to what more than `share` of the MACs the network could be cut; None where none can."""
        shares = [each for each in FEW_SHARES if each > share]
        if not shares or self._scored is None:
            return None
        try:
            return self._search(network, *self._scored, held).depth(shares)
        except SlimzooError:  # such as of a cut that does not compute what its mask does: the one that was made stays
            return None

    def _allocated(
        self, network: nn.Module, scores: Scores, grouping: Grouping, share: float, cost: Cost
    ) -> Sequence[Indices]:
        choice = self.choice
        return self._allocation(network)(
            grouping, scores, share=min(1.0, share), cost=cost, round_to=choice.round_to, floor=choice.floor
        )

    def _wanted(self, network: nn.Module, grouping: Grouping, scores: Scores) -> float:
        """The share of the MACs to keep: what was asked for, or what held-out images allow."""
        if self.choice.macs is not None:
            return self.choice.macs
        if DEPTH not in self.notes:
            held = self.held_out(network)
            if held is None:
                return HALF
            found = self._search(network, grouping, scores, held).depth()
            self.notes[DEPTH] = {**found.note(), "said": str(found)}
        share: float = self.notes[DEPTH]["share"]
        return share

    def _cut_to_macs(self, network: nn.Module, grouping: Grouping, scores: Scores, done: float) -> Pruned:
        wanted = self._wanted(network, grouping, scores)
        if self._whole is None:
            self._whole, cost = self._whole_macs(network, grouping), Cost.macs(grouping)
            self._check_reachable(grouping, cost, min(1.0, wanted * self._whole / cost.total))
        try:
            sized = self._sized_for(network, grouping, scores, wanted)
            share = wanted**done * self._whole / sized.cost.total
            keeps = self._allocated(network, scores, sized.grouping, share, sized.cost)
            pruned = cut_channels(self.shortened(network), sized.config.input_size, sized.grouping, keeps, scores)
        except UnequalCutError:
            if done == 1 / self.choice.rounds:
                for name in (DEPTH, INPUT):
                    self.notes.pop(name, None)  # they are found again, of the groups that are left
            raise
        self.config = sized.config
        if pruned.macs_after > share * pruned.macs_before * (1 + 1e-9):
            raise SlimzooError(f"wanted {share:.2%} of the MACs, got {pruned.macs_after:,}: less effect than counted")
        if done == 1 and pruned.macs_after == self._whole:
            raise UsageError(f"{100 * wanted:.4g}% of the MACs keeps every channel: nothing to cut; ask for less")
        return pruned

    def _whole_macs(self, network: nn.Module, grouping: Grouping) -> float:
        """Of the network with all its blocks, before this round."""
        return count_macs(network, self._own.input_size) if self.choice.blocks else grouping.macs

    def _check_reachable(self, grouping: Grouping, cost: Cost, share: float) -> None:
        """Check the budget of all rounds together, before the first: each has its floor."""
        check_reachable(cost, self._narrowest(grouping, rounds=self.choice.rounds), share)

    def _narrowest(self, grouping: Grouping, *, rounds: int) -> list[Indices]:
        floor = self.choice.floor**rounds
        return narrowed(grouping, np.zeros(len(grouping.groups)), round_to=self.choice.round_to, floor=floor)

    def _cut_to_latency(self, network: nn.Module, grouping: Grouping, scores: Scores, done: float) -> Pruned:
        """Cut by predicted milliseconds, measure, and cut deeper where the prediction was too low."""
        choice, size, short = self.choice, self.config.input_size, self.shortened(network)
        table = latency_table(
            short,
            size,
            grouping,
            threads=choice.threads,
            round_to=choice.round_to,
            floor=choice.floor,
            wanted_ms=None if choice.blocks or self._whole is not None else choice.latency,
            progress=self.progress,
        )
        assert choice.latency is not None
        if self._whole is None:
            self._whole = float(table.ms[0])
            if not choice.blocks:  # without which the network may be fast enough
                check_within_reach(choice.latency, self._whole, 0.0)
            self._check_reachable(grouping, table.cost, min(1.0, choice.latency / table.cost.total))
        wanted = self._whole * (choice.latency / self._whole) ** done
        target, least = LATENCY_MARGIN * wanted, float("inf")
        narrowest = table.cost.after(self._narrowest(grouping, rounds=1))
        for _ in range(LATENCY_TRIES):
            share = max(target, narrowest * (1 + 1e-9)) / table.cost.total
            keeps = self._allocated(network, scores, grouping, share, table.cost)
            pruned = cut_channels(short, size, grouping, keeps, scores)
            predicted = table.cost.after(keeps)
            timed = [short, pruned.model, *([network] if choice.blocks else [])]
            whole, found, *before = measured_ms(timed, size, threads=choice.threads)
            ms = found / whole * float(table.ms[0])  # beside the whole one, which may run faster now than it did then
            self.notes |= {
                "latency": {
                    "runtime": "onnxruntime",
                    "wanted_ms": wanted,
                    "predicted_ms": predicted,
                    "measured_ms": ms,
                    "before_ms": before[0] / whole * float(table.ms[0]) if before else self._whole,
                    "table_error": table.error,
                }
            }
            if ms <= wanted:
                return pruned
            least = min(least, ms)
            target *= LATENCY_MARGIN * wanted / ms
        raise SlimzooError(
            f"wanted {wanted:.4g} ms, and {LATENCY_TRIES} cuts took {least:.4g} ms at best: ask for more"
        )

    def _scene(self, network: nn.Module) -> Scene:
        return Scene(
            network=network, pixels=self.pixels, preprocess=self._own.preprocess, seed=self.seed, progress=self.progress
        )

    @property
    def _criterion(self) -> Any:
        """Where none was asked for: by images Optimal Brain Surgeon, of many Taylor's, and without them L2.

        Emoji at 64 px, 2,287 to train on, EfficientNet-Lite0 to 1/4 and 1/8 of the MACs, recovered in 288 steps, one
        seed, Taylor / OBS: 77.5 / 77.2 and 65.3 / 75.1% of the validation images, 66.1 / 57.1 and 57.8 / 59.3% of
        another style's, where what makes up for a channel does not carry over. Of 122, 180 and 400 images (things,
        emoji, garments; one seed) OBS left the answers nearer to the uncut network's; see compress/pruning/obs.py.
        """
        given = self.choice.criterion
        if given is None:
            given = "l2" if self.pixels is None else "obs" if self.few else "taylor"
        return CRITERIA.value(given)

    def _importance(self, network: nn.Module) -> Importance:
        found: Importance = self._scene(network).prepare(self._criterion)
        return found

    def _allocation(self, network: nn.Module) -> Allocation:
        """Prepared once for a network, which may take as long as dozens of cuts."""
        if self._prepared is None or self._prepared[0] is not network:
            given = self.choice.allocation
            if given is None:
                given = "cost" if getattr(self._criterion, "comparable", False) else "isomorphic"
            found: Allocation = self._scene(self.shortened(network)).prepare(ALLOCATIONS.value(given))
            if found is allocate_by_importance:
                found = partial(found, power=getattr(self._criterion, "power", POWER))
            self._prepared = network, found
        return self._prepared[1]
