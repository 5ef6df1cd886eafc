"""The settings of `compress`: what the model may cost and lose, and how long the search may take."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from compress.plan.amounts import COUNT, SIZE, TIME, reader
from transfer.fitting.settings import DEFAULT_MODEL, seconds
from zoo.errors import UsageError
from zoo.lineage import names_a_model
from zoo.settings import Seeded, option

# As amounts are written again: unit, and how many of the setting's own it is
UNITS = {"latency": ("ms", 1), "answer": ("ms", 1), "size": ("kB", 1e3), "memory": ("MB", 1e6), "macs": ("k", 1e3)}
OF_A_SEARCH = ("plan", "shares", "student", "trials", "model", "study", "finish")  # and not of a plan that is followed


def as_words(given: object) -> object:
    """A path, or those among several words, as words."""
    if isinstance(given, list | tuple):
        return tuple(map(str, given))
    return str(given) if isinstance(given, Path) else given


class Compress(Seeded):
    """max_drop: judged on images that the model was not trained on, against the fitted model.

    latency, answer, size, macs, memory: with one of them, the model that is compressed least among those that meet all;
    without, the fastest of those that lose little enough.

    plan: these steps instead of a search; see compress/plan/plan.py.

    latency_from: see compress/plan/elsewhere.py.

    study: of a search with several workers; see compress/plan/ledger.py.

    Raises:
        UsageError: what contradicts itself; a value out of its range.
    """

    max_drop: float = option(1.0, "Points of validation accuracy that may be lost.", ge=0, le=100)
    metric: Literal["top1", "balanced"] = option(
        "top1", "Of which accuracy: of all images, or balanced, the mean of the classes'."
    )
    latency: Annotated[float | None, BeforeValidator(reader("latency", TIME))] = option(
        None, "The most that one image may take on this machine, in the fastest runtime: 5ms", metavar="MS"
    )
    latency_from: Annotated[tuple[str, ...], BeforeValidator(as_words)] = option(
        (),
        "That machine is another: what deploy/bench.py measured there, of models that are here; can be given again.",
        metavar="FILE",
        path=True,
    )
    answer: Annotated[float | None, BeforeValidator(reader("answer", TIME))] = option(
        None, "The most that a photo of the data's median size may take to its answer, such as 50ms.", metavar="MS"
    )
    size: Annotated[float | None, BeforeValidator(reader("size", SIZE))] = option(
        None, "The most that the model file may take: 2MB.", metavar="BYTES"
    )
    macs: Annotated[float | None, BeforeValidator(reader("macs", COUNT))] = option(
        None, "The most multiply-accumulates of one image: 50M.", metavar="COUNT"
    )
    memory: Annotated[float | None, BeforeValidator(reader("memory", SIZE))] = option(
        None, "The most memory that a process may take with it: 150MB.", metavar="BYTES"
    )
    time_s: Annotated[float | None, BeforeValidator(seconds)] = option(
        None,
        "How long all of it may take: 10m, 1h; no new trial is begun that would take longer.",
        flags=("--time",),
        metavar="30m",
    )
    shares: tuple[float, ...] = option(
        (), "Try each of these shares of the MACs, instead of searching; can be given again.", metavar="SHARE"
    )
    student: tuple[str, ...] = option(
        (),
        "Also teach this smaller architecture by the fitted model; can be given again.",
        metavar="NAME",
        path=names_a_model,
    )
    trials: int = option(
        0,
        "After the search, as many more by Optuna's sampler, of other criteria, allocations and input sizes too.",
        ge=0,
        le=10_000,
    )
    runtime: tuple[Literal["onnxruntime", "openvino"], ...] = option(
        (), "That may run the model: onnxruntime, openvino; those installed unless given; can be given again."
    )
    model: Annotated[str, BeforeValidator(as_words), "str | Path"] = option(
        DEFAULT_MODEL, "What is fitted where SOURCE is images: see `slimzoo fit --model`.", path=names_a_model
    )
    threads: int | None = option(None, "Of the latency; one per physical core unless given.", ge=1)
    plan: Annotated[str | None, BeforeValidator(as_words), "str | Path | None"] = option(
        None,
        "Take these steps instead of searching: accurate, balanced, fast, smallest, or a YAML file of --dry-run's.",
        metavar="PLAN",
        path=os.path.isfile,
    )
    study: str | None = option(
        None,
        "A database for the trials that other machines reach, such as postgresql+psycopg://USER:PASSWORD@HOST/NAME "
        "with the extra postgresql; else a file in OUT.",
        metavar="URL",
    )
    finish: bool = option(False, "Begin no trial that takes training: choose among those that were tried before.")

    @model_validator(mode="after")
    def _check(self) -> Compress:
        if self.latency is not None and self.answer is not None and self.answer <= self.latency:
            raise UsageError(
                f"--answer of {self.answer:g} ms is no longer than --latency of {self.latency:g} ms, which is a part "
                "of it: leave one of them out"
            )
        if self.latency_from and (self.latency is None or self.answer is not None or self.runtime):
            raise UsageError(
                "--latency-from is of a --latency on another machine, in onnxruntime: give --latency, and leave out "
                "--answer and --runtime"
            )
        wrong = next((share for share in self.shares if not 0.05 <= share < 1), None)
        if wrong is not None:
            raise UsageError(f"a share of MACs of {wrong} must be from 0.05 to below 1: 0.5 keeps half")
        if self.plan is not None and (self.shares or self.trials or self.student or self.study is not None):
            raise UsageError(
                "--plan says what is done: leave out --shares, --student, --trials and --study, which are of a search"
            )
        return self

    def beside_a_plan(self) -> list[str]:
        """What to type with a plan, for the same budgets."""
        values = self.arguments()
        for name, (unit, least) in UNITS.items():
            if values[name] is not None:
                values[name] = f"{values[name] / least:.12g}{unit}"
        words = [o.words(values[o.name]) for o in self.options() if o.name not in OF_A_SEARCH]
        return [re.sub(r"^(\d+)\.0$", r"\1", word) for each in words for word in each]

    @property
    def budgets(self) -> Budgets:
        return Budgets(self.max_drop, self.latency, self.size, self.macs, self.memory, self.answer)


@dataclass(frozen=True)
class Budgets:
    """What a model may lose, in points, and cost: milliseconds, bytes, MACs; None is no limit."""

    max_drop: float
    latency_ms: float | None = None
    size_bytes: float | None = None
    macs: float | None = None
    memory_bytes: float | None = None
    answer_ms: float | None = None

    @property
    def costs(self) -> dict[str, float]:
        """Those that are limited."""
        named = {"latency_ms": self.latency_ms, "size_bytes": self.size_bytes, "macs": self.macs}
        named |= {"memory_bytes": self.memory_bytes, "answer_ms": self.answer_ms}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def of_time(self) -> bool:
        """Whether a candidate must be run to know what it costs."""
        return any(value is not None for value in (self.latency_ms, self.memory_bytes, self.answer_ms))

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"max_drop": self.max_drop, **self.costs}
