"""Candidates of the search, and what was found of those that were tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.plan.pipeline import Kept
from compress.plan.plan import Plan
from compress.plan.settings import Budgets
from compress.report.figures import count, megabytes, milliseconds, percent, signed
from transfer.data.split import VAL
from transfer.evaluation.statistics import PairedDrop, paired_drop

NAMES = {"latency_ms": "latency", "size_bytes": "size", "macs": "MACs"}
BASE = "fit"  # the name of the model that the search begins with
Z95 = 1.959964
# Lost on images that were kept back, over nats, one division each, the mean of a cut to 1/2 and one to 0.3: clipart 36,
# photographs of things 27 (both by older code), garments 15, emoji 13, scripts 12, digits 6, wallpapers -8.
POINTS_PER_NAT = 15.0
FEWEST_FLIPS = 0.02  # of the images, that are counted with where fewer answers changed


@dataclass(frozen=True)
class Candidate:
    """
    Attributes:
        share: of the MACs that pruning leaves; None prunes nothing.
        int8: whether it is quantized then.
    """

    share: float | None = None
    int8: bool = False

    @property
    def name(self) -> str:
        """Of its directory."""
        parts = [f"pruned-{100 * self.share:.0f}"] if self.share is not None else []
        return "-".join([*parts, "int8"] if self.int8 else parts) or BASE

    def plan(self, seed: int) -> Plan:
        """The steps from the fitted model."""
        pruned = [] if self.share is None else [("prune", {"macs": self.share, "seed": seed})]
        return Plan.of(*pruned, *([("quantize", {"seed": seed})] if self.int8 else []))


@dataclass(frozen=True)
class Trial:
    """
    Attributes:
        name: of its directory.
        candidate: None of a plan that a person wrote.
        plan: the steps from the fitted model.
        kept: where it is; None of one that failed.
        metrics: of its lineage.
        drop: of validation accuracy, paired with the fitted model's; None where nothing was measured.
        nats: how far its answers to held-out images are from the fitted model's; None where no step has said so.
        latency_ms: in onnxruntime.
        promised_ms: the latency that was expected of it before it was made.
        reason: why it failed.
    """

    name: str
    candidate: Candidate | None = None
    plan: Plan | None = None
    kept: Kept | None = None
    metrics: dict[str, Any] | None = None
    drop: PairedDrop | None = None
    latency_ms: float | None = None
    reason: str = ""
    nats: float | None = None
    promised_ms: float | None = None

    @property
    def lost(self) -> float | None:
        """The points that it is expected to have lost: what validation says, and as far as that is unsure, its nats."""
        return None if self.drop is None else expected_loss(self.drop, self.nats)

    @property
    def costs(self) -> dict[str, float | None]:
        metrics = self.metrics or {}
        return {"latency_ms": self.latency_ms, "size_bytes": metrics.get("size_bytes"), "macs": metrics.get("macs")}

    def keeps(self, budgets: Budgets) -> bool:
        """Whether it loses no more than it may."""
        return self.lost is not None and self.lost <= budgets.max_drop + 1e-9

    def over(self, budgets: Budgets) -> dict[str, float]:
        """By how many times it is over each budget of costs that it does not meet."""
        found = {name: (self.costs[name] or math.inf) / most for name, most in budgets.costs.items()}
        return {name: times for name, times in found.items() if times > 1}

    def meets(self, budgets: Budgets) -> bool:
        return self.kept is not None and self.keeps(budgets) and not self.over(budgets)

    def document(self, budgets: Budgets) -> dict[str, Any]:
        """Ready for JSON."""
        drop = None if self.drop is None else {"points": self.drop.points, "ci_points": self.drop.ci_points}
        found = {"name": self.name, "drop": drop, "nats": self.nats, "lost": self.lost, **self.costs}
        found |= {"promised_ms": self.promised_ms, "meets": self.meets(budgets)}
        return found | ({"reason": self.reason} if self.reason else {})

    def line(self, budgets: Budgets) -> str:
        """For a person, while the search goes on."""
        if self.kept is None:
            return f"{self.name}: {self.reason}"
        said = [] if self.metrics is None or VAL not in self.metrics else [percent(self.metrics[VAL]["top1"])]
        if self.drop is not None and self.lost is not None and self.name != BASE:
            said[-1:] = [f"{said[-1]} ({signed(-self.drop.points)} points; {signed(-self.lost)} expected)"]
        costs = self.costs
        said += [] if self.latency_ms is None else [milliseconds(self.latency_ms)]
        said += [megabytes(int(costs["size_bytes"]))] if costs["size_bytes"] else []
        said += [f"{count(int(costs['macs']))} MACs"] if costs["macs"] else []
        over = ", ".join(f"{times:.2g} times the {NAMES[name]} allowed" for name, times in self.over(budgets).items())
        return f"{self.name}: {', '.join(said)}" + (f"; {over}" if over else "")


def drop_between(base: dict[str, Any], metrics: dict[str, Any]) -> PairedDrop | None:
    """On the validation images that both answered."""
    before, after = (one.get(VAL, {}).get("correct") or "" for one in (base, metrics))
    return paired_drop(before, after) if before and len(before) == len(after) else None


def expected_loss(drop: PairedDrop, nats: float | None) -> float:
    """Points that are lost on new images: the mean of two normal estimates, weighted by how sure each is.

    One is what validation images say, whose variance is that of a paired difference, of one flip at least; the other
    follows from how far all answers moved, and is as unsure as it is large. Fourteen images on which nothing flipped do
    not outweigh answers that moved far; a thousand do.
    """
    if nats is None:
        return drop.points
    by_nats = POINTS_PER_NAT * nats
    variance = (100 / drop.n) ** 2 * max(drop.flips, 1)
    weight = by_nats**2 / (by_nats**2 + variance)
    return by_nats + weight * (drop.points - by_nats)


def nats_between(lineage: Sequence[Mapping[str, Any]], steps: int) -> float | None:
    """How far answers moved in the last steps, which each say how far in theirs; None where one does not."""
    found = 0.0
    for record in lineage[len(lineage) - steps :]:
        if record["verb"] == "prune" and record.get("diverged"):
            found += record["diverged"]["nats"]
        elif record["verb"] == "quantize" and record.get("divergence"):
            tried = record["divergence"]
            found += tried[record["taken"][-1]] if record.get("taken") else min(tried.values())
        else:
            return None
    return found


def images_needed(points: float, drop: PairedDrop) -> int:
    """How many validation images it takes until a loss of so many points is more than its 95% interval is wide.

    By the normal approximation of a paired difference, whose variance is the share of answers that changed, over n.
    """
    changed = max(drop.flips / drop.n, FEWEST_FLIPS)
    return math.ceil(changed * (100 * Z95 / points) ** 2) if points > 0 else 0


def best_of(trials: Sequence[Trial], budgets: Budgets) -> Trial | None:
    """The one to use; None where none meets the budgets.

    With budgets of costs, the one whose compression is least, by the MACs and then the bytes: what meets them needs to
    be no faster. Without, the fastest, or the smallest where nothing could be timed.
    """
    meeting = [trial for trial in trials if trial.meets(budgets)]
    if budgets.costs:
        return max(
            meeting, key=lambda trial: (_known(trial.costs["macs"]), _known(trial.costs["size_bytes"])), default=None
        )
    compressed = [trial for trial in meeting if trial.name != BASE]
    if any(trial.latency_ms is None for trial in compressed):
        return min(compressed, key=lambda trial: trial.costs["size_bytes"] or math.inf, default=None)
    return min(compressed, key=lambda trial: trial.latency_ms or math.inf, default=None)


def nearest_of(trials: Sequence[Trial], budgets: Budgets) -> Trial | None:
    """Of those that meet not all: the one that is least over its worst budget among those that keep their accuracy; the
    one that loses least, where none keeps it. The fitted model is one of them where costs are limited."""
    there = [t for t in trials if t.kept is not None and t.drop is not None and (t.name != BASE or budgets.costs)]
    keeping = [trial for trial in there if trial.keeps(budgets)]
    if keeping:
        return min(keeping, key=lambda trial: max(trial.over(budgets).values(), default=1.0))
    return min(there, key=lambda trial: math.inf if trial.lost is None else trial.lost, default=None)


def _known(value: float | None) -> float:
    return -1.0 if value is None else value
