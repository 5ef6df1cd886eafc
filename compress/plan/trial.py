"""Candidates of the search, and what was found of those that were tried."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.plan.losses import expected_loss
from compress.plan.pipeline import Kept
from compress.plan.plan import Plan
from compress.plan.settings import Budgets
from compress.pruning.settings import Prune
from compress.report.figures import count, megabytes, milliseconds, percent, signed
from transfer.data.split import VAL
from transfer.evaluation.statistics import PairedDrop
from zoo.errors import DataError, SlimzooError

NAMES = {
    "latency_ms": "latency",
    "size_bytes": "size",
    "macs": "MACs",
    "memory_bytes": "memory",
    "answer_ms": "time to an answer",
}
SHOWN: Mapping[str, Callable[[float | None], str]] = {
    "latency_ms": milliseconds,
    "size_bytes": megabytes,
    "macs": count,
    "memory_bytes": megabytes,
    "answer_ms": milliseconds,
}
BASE = "fit"  # the name of the model that the search begins with
LONGER = 4  # times as many epochs of recovery
ALIKE = 1.03  # times what another costs, up to which it is no difference
HEADER = ("", "top-1", "points", "expected", "latency", "size", "MACs", "over")  # of the lines of trials
WIDTHS = (32, 8, 8, 10, 26, 10, 10, 1)


@dataclass(frozen=True)
class Candidate:
    """
    Attributes:
        share: of the MACs that pruning leaves; None prunes nothing.
        int8: whether it is quantized then.
        longer: whether it recovers LONGER times as long.
        student: an architecture that the fitted model teaches, and which is not pruned.
        blocks: how many residual blocks pruning leaves out.
        side: of the images that the pruned network takes, in pixels; None is what `prune` chooses.
        criterion, allocation: of `prune`; None are its own.
        resized: whether smaller images are all: no channel is cut for the share, and nothing is trained.
    """

    share: float | None = None
    int8: bool = False
    longer: bool = False
    student: str | None = None
    blocks: int = 0
    side: int | None = None
    criterion: str | None = None
    allocation: str | None = None
    resized: bool = False

    @property
    def plain(self) -> Candidate:
        """The one whose costs are known before it is made: none of the rest changes them by much."""
        if self.resized:
            return self
        return Candidate(self.share, self.int8, student=self.student, blocks=self.blocks)

    @property
    def is_cut(self) -> bool:
        """Whether channels or blocks go."""
        return self.share is not None and not self.resized

    @property
    def name(self) -> str:
        """Of its directory."""
        if self.resized:
            return f"resized-{self.side}" + ("-int8" if self.int8 else "")
        parts = [f"pruned-{100 * self.share:g}"] if self.share is not None else []
        parts += [f"taught-{re.sub('[^A-Za-z0-9_.]+', '-', self.student)}"] if self.student is not None else []
        parts += [f"less-{self.blocks}"] if self.blocks else []
        parts += [f"{self.side}px"] if self.side is not None else []
        parts += [word for word in (self.criterion, self.allocation) if word is not None]
        parts += ["longer"] if self.longer else []
        return "-".join([*parts, "int8"] if self.int8 else parts) or BASE

    def plan(self, seed: int) -> Plan:
        """The steps from the fitted model."""
        steps: list[tuple[str, dict[str, Any]]] = []
        if self.student is not None:
            steps.append(("distill", {"student": self.student, "seed": seed}))
        if self.share is not None:
            more: dict[str, Any] = {"recover": LONGER * Prune().recover} if self.longer else {}
            more |= {"blocks": self.blocks} if self.blocks else {}
            own = {"size": self.side, "criterion": self.criterion, "allocation": self.allocation}
            more |= {name: value for name, value in own.items() if value is not None}
            more |= {"criterion": "l2", "recover": 0} if self.resized else {}
            steps.append(("prune", {"macs": self.share, "seed": seed, **more}))
        return Plan.of(*steps, *([("quantize", {"seed": seed})] if self.int8 else []))


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
        latencies: runtime -> milliseconds.
        memory_bytes: what a process that runs it takes at most, in the fastest runtime.
        answer_ms: from a photo to its answer, where that counts.
        promised_ms: what it was expected to take before it was made, at the speed of the machine that measured it.
        recovered: whether its recovery brought something.
        reason: why it failed.
    """

    name: str
    candidate: Candidate | None = None
    plan: Plan | None = None
    kept: Kept | None = None
    metrics: dict[str, Any] | None = None
    drop: PairedDrop | None = None
    nats: float | None = None
    latencies: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: float | None = None
    answer_ms: float | None = None
    promised_ms: float | None = None
    recovered: bool = True
    reason: str = ""

    @property
    def lost(self) -> float | None:
        """The points that it is expected to have lost: what validation says, and as far as that is unsure, its nats."""
        return None if self.drop is None else expected_loss(self.drop, self.nats)

    @property
    def is_int8(self) -> bool:
        return self.plan is not None and "quantize" in self.plan.verbs

    @property
    def runtime(self) -> str | None:
        """In which it is fastest."""
        return min(self.latencies, key=lambda name: self.latencies[name], default=None)

    @property
    def latency_ms(self) -> float | None:
        return None if self.runtime is None else self.latencies[self.runtime]

    @property
    def costs(self) -> dict[str, float | None]:
        metrics = self.metrics or {}
        found = {"latency_ms": self.latency_ms, "size_bytes": metrics.get("size_bytes"), "macs": metrics.get("macs")}
        return {**found, "memory_bytes": self.memory_bytes, "answer_ms": self.answer_ms}

    def answering(self, overhead_ms: float) -> Trial:
        """The same with the time from a photo to its answer, of which so much passes before the network."""
        if not overhead_ms or self.latency_ms is None:
            return self
        return replace(self, answer_ms=overhead_ms + self.latency_ms)

    def keeps(self, budgets: Budgets) -> bool:
        """Whether it loses no more than it may."""
        return self.lost is not None and self.lost <= budgets.max_drop + 1e-9

    def over(self, budgets: Budgets) -> dict[str, float]:
        """By how many times it is over each budget of costs that it does not meet."""
        found = {name: (self.costs[name] or math.inf) / most for name, most in budgets.costs.items()}
        return {name: times for name, times in found.items() if times > 1}

    def against(self, budgets: Budgets) -> str:
        """What it is expected to lose, and takes, of what it may, in a few words."""
        found = [] if self.lost is None else [f"{self.lost:.1f} of {budgets.max_drop:g} points"]
        found += [f"{SHOWN[name](self.costs[name])} of {SHOWN[name](most)}" for name, most in budgets.costs.items()]
        return ", ".join(found)

    def meets(self, budgets: Budgets) -> bool:
        return self.kept is not None and self.keeps(budgets) and not self.over(budgets)

    def document(self, budgets: Budgets) -> dict[str, Any]:
        """What a person or a program reads of it; ready for JSON."""
        drop = None if self.drop is None else {"points": self.drop.points, "ci_points": list(self.drop.ci_points)}
        found = {"name": self.name, "drop": drop, "nats": self.nats, "lost": self.lost, **self.costs}
        found |= {"runtime": self.runtime, "latencies_ms": dict(self.latencies), "promised_ms": self.promised_ms}
        return {**found, "meets": self.meets(budgets)} | ({"reason": self.reason} if self.reason else {})

    def record(self) -> dict[str, Any]:
        """All of it but the plan, which follows from the candidate; ready for JSON, and for `Trial.of`."""
        found = asdict(self) | {"plan": None}
        return found | ({} if self.kept is None else {"kept": {**found["kept"], "path": str(self.kept.path)}})

    @classmethod
    def of(cls, record: Mapping[str, Any], seed: int) -> Trial:
        """The trial of a `record`.

        Args:
            seed: of the plan.
        """
        given = dict(record)
        candidate = Candidate(**given.pop("candidate"))
        kept, drop = given.pop("kept"), given.pop("drop")
        return cls(
            **given
            | {"candidate": candidate, "plan": candidate.plan(seed)}
            | ({} if kept is None else {"kept": Kept(**{**kept, "path": Path(kept["path"])})})
            | ({} if drop is None else {"drop": PairedDrop(**{**drop, "ci_points": tuple(drop["ci_points"])})})
        )

    def cells(self, budgets: Budgets) -> list[str]:
        """Below HEADER, for a person."""
        costs, changed = self.costs, self.drop is not None and self.lost is not None and self.name != BASE
        return [
            self.name,
            percent(self.metrics[VAL]["top1"]) if self.metrics is not None and VAL in self.metrics else "",
            signed(-self.drop.points) if changed and self.drop is not None else "",
            signed(-self.lost) if changed and self.lost is not None else "",
            "" if self.latency_ms is None else f"{milliseconds(self.latency_ms)} in {self.runtime}",
            megabytes(int(costs["size_bytes"])) if costs["size_bytes"] else "",
            count(int(costs["macs"])) if costs["macs"] else "",
            ", ".join(_over(NAMES[name], times) for name, times in self.over(budgets).items()),
        ]

    def line(self, budgets: Budgets) -> str:
        """A row of them, or why there are none."""
        return row(self.cells(budgets) if self.kept is not None else [self.name, self.reason])


def _over(name: str, times: float) -> str:
    return f"{name} not known" if math.isinf(times) else f"{name} {times:.2g}x"


def row(cells: Sequence[str]) -> str:
    return " ".join(f"{cell:<{width - 1}}" for cell, width in zip(cells, WIDTHS, strict=False)).rstrip()


def best_of(trials: Sequence[Trial], budgets: Budgets) -> Trial | None:
    """The one to use; None where none meets the budgets.

    With budgets of costs, the one whose compression is least, by the MACs, and then in float: what meets them needs to
    be no faster. Without, the fastest of those that were timed, or the smallest where nothing could be timed. Of what
    is as good the one that loses least; networks of the same widths are, whatever each was measured to take.
    """
    meeting = [trial for trial in trials if trial.meets(budgets)]
    if budgets.costs:
        return max(meeting, key=lambda t: (_known(t.costs["macs"]), not t.is_int8, -(t.lost or 0.0)), default=None)
    compressed = [trial for trial in meeting if trial.name != BASE]
    if timed := _twins_alike(compressed):
        return _least([trial for trial in compressed if trial.name in timed], timed)
    return _least(compressed, {trial.name: float(trial.costs["size_bytes"] or math.inf) for trial in compressed})


def _twins_alike(trials: Sequence[Trial]) -> dict[str, float]:
    """The latencies of those that were timed, by name; of one cut, which recovered for longer or not, the least."""
    timed = {trial.name: (widths_of(trial), trial.latency_ms) for trial in trials if trial.latency_ms is not None}
    return {name: min(ms for other, ms in timed.values() if other == widths) for name, (widths, _) in timed.items()}


def widths_of(trial: Trial) -> tuple[Any, ...]:
    """The same for the same widths."""
    return (trial.name,) if trial.candidate is None else (trial.candidate.plain, trial.costs["macs"])


def _least(trials: Sequence[Trial], costs: Mapping[str, float]) -> Trial | None:
    """The one that loses least of those that cost as little as any, or hardly more; costs are by name."""
    least = min(costs.values(), default=math.inf)
    alike = [trial for trial in trials if costs[trial.name] <= ALIKE * least]
    return min(alike, key=lambda trial: (trial.lost or 0.0, costs[trial.name]), default=None)


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


def reason_of(error: SlimzooError) -> str:
    """Why a candidate came to nothing.

    Raises:
        SlimzooError: the same, where the candidate is not the reason.
    """
    if isinstance(error, DataError) or isinstance(error.__cause__, OSError):
        raise error
    return str(error)
