"""Sensitivity: what the network loses when one group is cut and all others stay, measured on validation images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.dependency.cut import cut_copy
from compress.dependency.group import Grouping, Indices
from compress.pruning.allocate import Losses, Scores, allocate_by_loss, units_of, widths_of
from compress.pruning.budget import Cost
from compress.pruning.scene import Scene
from compress.recovery.mean_loss import few_of, mean_loss
from transfer.data.cache import cached_array, content_key
from transfer.data.loader import LabelledPixels
from transfer.frozen.features import describe_weights
from zoo.preprocess import Preprocess
from zoo.progress import Progress

SHARES = (0.75, 0.5, 0.25)  # of its width that a group keeps when it is tried; between them losses are interpolated
VERSION = 1  # of the rule


class Sensitivity:
    """The allocation that loses least by measurement (Li et al. 2017, arXiv 1608.08710, sec. 3.2: each layer alone)."""

    needs_images = True

    @classmethod
    def prepared(cls, scene: Scene) -> Sensitivity:
        assert scene.pixels is not None
        images = scene.pixels.train if scene.pixels.val is None else scene.pixels.val
        return cls(scene.network, images, scene.preprocess, progress=scene.progress)

    def __init__(
        self, model: nn.Module, images: LabelledPixels, preprocess: Preprocess, *, progress: Progress | None = None
    ) -> None:
        self.model, self.images, self.preprocess, self.progress = model, few_of(images), preprocess, progress

    def __call__(
        self,
        grouping: Grouping,
        scores: Scores,
        *,
        share: float,
        cost: Cost | None = None,
        round_to: int = 8,
        floor: float = 0.1,
    ) -> list[Indices]:
        losses = self.losses(grouping, scores, round_to=round_to, floor=floor)
        return allocate_by_loss(grouping, scores, losses, share=share, cost=cost)

    def losses(self, grouping: Grouping, scores: Scores, *, round_to: int = 8, floor: float = 0.1) -> Losses:
        """For each group and each width that it may have, by how much the mean cross-entropy rises; from the cache."""
        units = units_of(grouping.groups)
        orders = [np.argsort(-score, kind="stable") for score in scores]
        widths = [widths_of(group, round_to, floor) for group in grouping.groups]
        tried = {unit[0]: _nearest(widths[unit[0]]) for unit in units}

        loss = mean_loss(self.images, self.preprocess)

        def measure() -> Iterator[NDArray[np.float64]]:
            yield np.array([loss(self.model)])
            trials = [(unit, width) for unit in units for width in tried[unit[0]]]
            for done, (unit, width) in enumerate(trials):
                if self.progress is not None:
                    self.progress("sensitivity", done, len(trials), grouping.groups[unit[0]].name)
                keeps = [np.arange(group.width) for group in grouping.groups]
                for i in unit:
                    keeps[i] = np.sort(orders[i][:width])
                yield np.array([loss(cut_copy(self.model, grouping, keeps))])

        key = content_key(
            f"sensitivity {VERSION} {torch.__version__} {self.preprocess} {tried} {self.images.content()}",
            [f"{group.name} {order.tolist()}" for group, order in zip(grouping.groups, orders, strict=True)],
            describe_weights(self.model),
        )
        count = 1 + sum(len(widths) for widths in tried.values())
        found = np.array(cached_array("tables", key, shape=(count,), dtype=np.float64, make=measure))
        losses: Losses = [{} for _ in grouping.groups]
        at = 1
        for unit in units:
            measured = found[at : at + len(tried[unit[0]])] - found[0]
            at += len(measured)
            known = np.maximum.accumulate(np.maximum([0.0, *measured], 0))  # narrower is never better
            shown = [grouping.groups[unit[0]].width, *tried[unit[0]]]
            for i in unit:
                values = np.interp(-np.array(widths[i]), -np.array(shown), known) / len(unit)
                losses[i] = dict(zip(widths[i], _beyond(values, widths[i], shown, known / len(unit)), strict=True))
        return losses


def _nearest(widths: Sequence[int]) -> list[int]:
    """Choose, of the widths that a group may have, those nearest to `SHARES` of the first, without it."""
    found = {min(widths, key=lambda width: abs(width - share * widths[0])) for share in SHARES}
    return sorted(found - {widths[0]}, reverse=True)


def _beyond(
    values: NDArray[np.float64], widths: Sequence[int], shown: Sequence[int], known: NDArray[np.float64]
) -> list[float]:
    """Widths below the narrowest that was tried go on along the last slope."""
    if len(shown) < 2:
        return [float(value) for value in values]
    slope = (known[-1] - known[-2]) / (shown[-2] - shown[-1])
    return [float(v) + max(0, shown[-1] - w) * float(slope) for v, w in zip(values, widths, strict=True)]
