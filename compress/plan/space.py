"""What Optuna's sampler draws candidates from, once the search is done: more than the search itself has tried.

The search leaves `prune` its own criterion, allocation and size of the images, which were chosen on many tasks; on one
task others may be better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.plan.promises import counts_of
from compress.plan.trial import Candidate
from compress.pruning.input_size import MOST_CHANNELS, side_for
from transfer.data.dataset import FEW_IMAGES
from transfer.data.split import TRAIN
from zoo.files.model_directory import ModelConfig

if TYPE_CHECKING:
    from optuna.trial import Trial

SHARES = (0.05, 1.0)  # of the MACs
ALLOCATIONS = (None, "sensitivity", "isomorphic")
BY_SIZE = (0.7, 0.5)  # of the MACs, that smaller images leave by themselves


@dataclass(frozen=True)
class Space:
    """
    Attributes:
        blocks: how many residual blocks may be left out.
        sides: of images, in pixels; None is prune's own choice, as everywhere here.
        criteria, allocations: by name.
        side: of the images of the fitted model.
    """

    blocks: Sequence[int] = (0,)
    sides: Sequence[int | None] = (None,)
    criteria: Sequence[str | None] = (None,)
    allocations: Sequence[str | None] = (None,)
    side: int = 0

    def drawn(self, trial: Trial) -> Candidate:
        """As the sampler has it, of whole percents."""
        share = round(trial.suggest_float("share", *SHARES), 2)
        int8 = trial.suggest_categorical("int8", [False, True])
        longer = trial.suggest_categorical("longer", [False, True])
        found = {name: trial.suggest_categorical(name, values) for name, values in self._choices.items()}
        if (side := found.get("side")) is not None and side < self.side:
            if share > MOST_CHANNELS * (side / self.side) ** 2:
                found["side"] = None  # which leaves no more than that by itself
        return Candidate(share, int8, longer, **found) if share < 1 else Candidate(None, int8)

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


def space_of(networks: Sequence[dict[str, Any]], fitted: ModelConfig) -> Space:
    """
    Args:
        networks: what was measured before the search.
        fitted: of the model that it begins with.
    """
    preprocess = fitted.preprocess
    side, first = preprocess.size[0], fitted.lineage[0] if fitted.lineage else {}
    few = (first.get("data") or {}).get("sizes", {}).get(TRAIN, 0) <= FEW_IMAGES
    smaller = sorted({side_for(side, share, 1.0) for share in BY_SIZE} - {side}, reverse=True)
    changes = preprocess.size == (side, side) and not preprocess.is_prepared
    return Space(
        tuple(counts_of(networks)),
        (None, *([side] if few else []), *smaller) if changes else (None,),
        (None, "taylor" if few else "obs", "l2"),
        ALLOCATIONS,
        side,
    )
