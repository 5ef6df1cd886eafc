"""The settings of `compress`: what the model may cost and lose, and how long the search may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from compress.plan.amounts import COUNT, SIZE, TIME, reader
from transfer.fitting.settings import DEFAULT_MODEL, seconds
from zoo.settings import Seeded, option


class Compress(Seeded):
    """max_drop: judged on images that the model was not trained on, against the fitted model.

    latency, size, macs: with one of them, the model that is compressed least among those that meet all; without, the
    fastest of those that lose little enough.

    plan: these steps instead of a search; see compress/plan/plan.py.
    """

    max_drop: float = option(1.0, "Points of validation accuracy that may be lost.", ge=0, le=100)
    latency: Annotated[float | None, BeforeValidator(reader("latency", TIME))] = option(
        None, "The most that one image may take in onnxruntime on this machine: 5ms", metavar="MS"
    )
    size: Annotated[float | None, BeforeValidator(reader("size", SIZE))] = option(
        None, "The most that the model file may take: 2MB.", metavar="BYTES"
    )
    macs: Annotated[float | None, BeforeValidator(reader("macs", COUNT))] = option(
        None, "The most multiply-accumulates of one image: 50M.", metavar="COUNT"
    )
    time_s: Annotated[float | None, BeforeValidator(seconds)] = option(
        None,
        "How long all of it may take: 10m, 1h; no new trial is begun that would take longer.",
        flags=("--time",),
        metavar="30m",
    )
    model: str = option(DEFAULT_MODEL, "What is fitted where SOURCE is images: see `slimzoo fit --model`.")
    threads: int | None = option(None, "Of the latency; one per physical core unless given.", ge=1)
    plan: str | None = option(
        None, "A YAML file of steps to take instead of searching; --dry-run writes one.", metavar="FILE", path=True
    )

    finish: bool = option(False, "Begin nothing that takes training: choose among what was tried before.")

    @property
    def budgets(self) -> Budgets:
        return Budgets(self.max_drop, self.latency, self.size, self.macs)


@dataclass(frozen=True)
class Budgets:
    """What a model may lose, in points, and cost: milliseconds, bytes, MACs; None is no limit."""

    max_drop: float
    latency_ms: float | None = None
    size_bytes: float | None = None
    macs: float | None = None

    @property
    def costs(self) -> dict[str, float]:
        """Those that are limited."""
        named = {"latency_ms": self.latency_ms, "size_bytes": self.size_bytes, "macs": self.macs}
        return {name: value for name, value in named.items() if value is not None}

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"max_drop": self.max_drop, **self.costs}
