"""What Optuna's sampler draws candidates from, once the search is done: more than the search itself has tried.

The search leaves `prune` its own criterion, allocation and size of the images, which were chosen on many tasks; on one
task others may be better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compress.plan.cuts import counts_of, smaller_sides
from compress.plan.trial import Candidate
from compress.pruning.input_size import MOST_CHANNELS
from transfer.data.dataset import FEW_IMAGES
from transfer.data.split import TRAIN
from zoo.files.model_directory import LoadedModel

if TYPE_CHECKING:
    from optuna.trial import Trial

SHARES = (0.05, 1.0)  # of the MACs
ALLOCATIONS = (None, "sensitivity", "isomorphic")


@dataclass(frozen=True)
class Space:
    """
    Attributes:
        blocks: how many residual blocks may be left out.
        sides: of images, in pixels; None is prune's own choice, as everywhere here.
        criteria, allocations: by name.
        side: of the images of the fitted model.
        left: the share of the MACs that is left without so many blocks.
    """

    blocks: Sequence[int] = (0,)
    sides: Sequence[int | None] = (None,)
    criteria: Sequence[str | None] = (None,)
    allocations: Sequence[str | None] = (None,)
    side: int = 1
    left: Mapping[int, float] = field(default_factory=dict)

    def drawn(self, trial: Trial) -> Candidate:
        """As the sampler has it, of whole percents, and no more than blocks and smaller images leave by themselves."""
        share = round(trial.suggest_float("share", *SHARES), 2)
        int8 = trial.suggest_categorical("int8", [False, True])
        longer = trial.suggest_categorical("longer", [False, True])
        found = {name: trial.suggest_categorical(name, values) for name, values in self._choices.items()}
        if found.get("criterion") == "l2" and found.get("allocation") == "isomorphic":
            found["allocation"] = None  # which is that one's own
        whole = self.left.get(found.get("blocks", 0), 1.0)
        left = whole * ((found.get("side") or self.side) / self.side) ** 2
        if MOST_CHANNELS * left < SHARES[0]:
            found["side"], left = None, whole
        if left < 1:
            share = min(share, math.floor(100 * MOST_CHANNELS * left) / 100)
        return Candidate(share, int8, longer, **found) if share < 1 else Candidate(int8=True)

    @staticmethod
    def holds(candidate: Candidate) -> bool:
        """Whether it is one that might be drawn."""
        return candidate.student is None and not candidate.resized

    def params(self, candidate: Candidate) -> dict[str, Any]:
        """What the sampler has to draw for it to be drawn."""
        found = {"share": candidate.share or 1.0, "int8": candidate.int8, "longer": candidate.longer}
        return found | {name: getattr(candidate, name) for name in self._choices}

    @property
    def _choices(self) -> dict[str, Sequence[Any]]:
        every: dict[str, Sequence[Any]] = {
            "blocks": self.blocks,
            "side": self.sides,
            "criterion": self.criteria,
            "allocation": self.allocations,
        }
        return {name: values for name, values in every.items() if len(values) > 1}


def space_of(networks: Sequence[dict[str, Any]], fitted: LoadedModel) -> Space:
    """
    Args:
        networks: what was measured before the search.
        fitted: the model that it begins with.
    """
    lineage, side, sides = fitted.config.lineage, fitted.config.preprocess.size[0], smaller_sides(fitted)
    fit: Mapping[str, Any] = next((record for record in reversed(lineage) if record["verb"] == "fit"), {})
    few = (fit.get("data") or {}).get("sizes", {}).get(TRAIN, 0) <= FEW_IMAGES
    left = {count: max(float(each["share"]) for each in own) for count, own in _by_blocks(networks).items()}
    return Space(
        tuple(count for count in counts_of(networks) if MOST_CHANNELS * left.get(count, 1.0) >= SHARES[0]),
        (None, *([side] if few else []), *sides) if sides else (None,),
        (None, "taylor" if few else "obs", "l2"),
        ALLOCATIONS,
        side,
        left,
    )


def _by_blocks(networks: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for each in networks:
        if each["share"] is not None:
            found.setdefault(int(each.get("blocks") or 0), []).append(each)
    return found
