"""A search at work: candidates one after the other, by one worker or several, until nothing more could be better."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.deployment.export import network_of
from compress.graph.network import export_network
from compress.plan.elsewhere import Target
from compress.plan.ledger import Ledger
from compress.plan.losses import drop_between, nats_between, recovered
from compress.plan.meanwhile import show
from compress.plan.pipeline import Kept, Pipeline
from compress.plan.plan import Plan, PlannedStep
from compress.plan.promises import Promised, as_small, in_step, overhead
from compress.plan.search import next_candidate
from compress.plan.settings import Budgets, Compress
from compress.plan.space import Space, space_of
from compress.plan.timing import fitting, machine, timed
from compress.plan.trial import BASE, HEADER, Candidate, Trial, best_of, reason_of, row
from compress.pruning.settings import Prune
from zoo.disk import write_json
from zoo.errors import SlimzooError
from zoo.files.manifest import CHECKPOINTS, TRIALS
from zoo.files.model_directory import ONNX, load_model, read_config
from zoo.lineage import current_metrics

TRYING = "trying "  # begins the line that says so
SHORTEST = 10.0  # seconds that a step may take of which nothing is known
QUANTIZED = Candidate(int8=True).plan(0).steps[-1].kind
LONGER_STEP = 1.5  # times as long as the longest step of its kind a next one may take
WAIT_S = 1.0  # between looks at what other workers have found
PATIENCE_S = 600.0  # for latencies from the machine that measures them, while nobody is at work
DRAWN_IN_VAIN = 5  # candidates of the sampler's that were tried before
TOO_BUSY_S, BUSY_TRIES = 20.0, 3  # between tries to measure a machine that is too busy, and how many


@dataclass
class Search:
    """
    Attributes:
        runtimes: that may run the model.
        overhead_ms: from a photo to the network's input, where that counts.
        target: the machine whose latencies count, where it is not this one.
        until: when the time is up, in seconds since 1970.
        tell: told what a person should know.
        work: the directory in work, where what was tried is kept up to date; None in a worker that helps.
        shares: of the MACs, to choose from.
        times: whether this is the machine whose latencies count.
        networks: that were measured before.
        tables: what candidates were promised to cost by them.
        promised: the same, as fast as the machine is by what was measured since.
        longest: seconds that the steps of each kind took at most.
        said: what is to be said in the end.
        alone_s: how long it has waited while nobody else was at work.
        shown: how many of the trials can be looked at meanwhile.
        comparing_s: how long it took to measure them side by side, which is done again where more are found.
    """

    pipeline: Pipeline
    settings: Compress
    runtimes: tuple[str, ...]
    tell: Callable[[str], None]
    work: Path | None
    shares: tuple[float, ...] = ()
    times: bool = True
    overhead_ms: float = 0.0
    target: Target | None = None
    until: float = math.inf
    networks: Sequence[dict[str, Any]] = ()
    tables: Promised = field(default_factory=dict)
    promised: Promised = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    longest: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    alone_s: float = 0.0
    shown: int = 0
    comparing_s: float = 0.0

    @property
    def budgets(self) -> Budgets:
        return self.settings.budgets

    def state(self) -> str:
        """How far the search is, in a few words."""
        if not self.trials:
            return ""
        best, found = best_of(self.trials, self.budgets), f"{len(self.trials)} tried"
        found += "" if best is None else f", best so far {best.name}: {best.against(self.budgets)}"
        rest = self.until - time.time()
        return found if math.isinf(rest) else f"{found}; {max(0.0, rest) / 60:.0f} min left"

    def promise(self, promised: Promised) -> None:
        """What candidates will cost, by networks that were measured here."""
        self.tables = promised
        for candidate, costs in self.tables.items():
            if self.target is not None and "latency_ms" in costs:
                costs["latency_ms"] = self.target.there(costs["latency_ms"], int8=candidate.int8)
        self.promised = self.tables

    def base(self, kept: Kept, metrics: dict[str, Any]) -> Trial:
        """The fitted model, as the first trial."""
        if self.budgets.answer_ms is not None and not self.overhead_ms:
            self.overhead_ms = self._overhead(kept)
        trial = Trial(
            BASE, Candidate(), Plan(()), kept, metrics, drop_between(metrics, metrics, self.settings.metric), 0.0
        )
        return self.found(self.with_times(trial))

    def _overhead(self, kept: Kept) -> float:
        """What no promise has measured: milliseconds from a photo to the network's input."""
        file, images = self.pipeline.exported(kept) / ONNX, Path(str(self.pipeline.data))

        def measure() -> dict[str, Any]:
            with self.pipeline.device.alone():
                ms, disturbed = overhead(network_of(file), read_config(kept.path), images)
            return {"overhead_ms": ms, "disturbed": disturbed}

        terms = [kept.key, self.pipeline.content, machine()]
        return float(self.timed_calmly("overhead", terms, measure, "the way to the network")["overhead_ms"])

    def run(self, base: Trial, ledger: Ledger) -> None:
        """Try candidates until nothing more could be better, or the time is up; others may help."""
        assert base.kept is not None
        shares, idle = self.shares, 0
        space = space_of(self.networks, load_model(base.kept.path)) if self.settings.trials else Space()
        while idle < DRAWN_IN_VAIN:
            self.until = ledger.until
            if self.work is None and ledger.is_finished:
                return
            others = ledger.running()
            running = self._hear(ledger) | others
            candidate = next_candidate(
                self.trials,
                self.budgets,
                self.promised,
                shares,
                running=running,
                each=bool(self.settings.shares),
                students=self.settings.student,
            )
            if candidate is None and not self._may_draw(running, ledger.drawn()):
                if not running or self.settings.finish:
                    return
                if not self._wait(others):
                    self.said.append(
                        f"for {PATIENCE_S / 60:.0f} min nobody has timed what was found: its search is gone"
                    )
                    return
                continue
            if reason := self._too_late(base, candidate):
                if running and not self.settings.finish and self._wait(others):  # what was begun in time counts
                    continue
                self.said.append(reason)
                return
            made = ledger.attempt(candidate, lambda taken: self._try(taken, base), space)
            idle = idle + 1 if made is None and candidate is None else 0
        self.said.append("Optuna's sampler found nothing new to try")

    def _wait(self, others: Collection[Candidate]) -> bool:
        """Whether that may still pay: others are at work, or were a while ago."""
        self.show()
        self.pipeline.progress("waiting for other workers", 0, 1, "")
        time.sleep(WAIT_S)
        self.alone_s = 0.0 if others else self.alone_s + WAIT_S
        return self.alone_s < PATIENCE_S

    def _may_draw(self, running: Collection[Candidate], drawn: Collection[Candidate]) -> bool:
        """Whether the search itself is done, and more is to be tried."""
        return len(drawn) < self.settings.trials and all(candidate in drawn for candidate in running)

    def _hear(self, ledger: Ledger) -> set[Candidate]:
        """Of what was finished, by whomever; those are left that wait to be timed on another machine."""
        known, left = {trial.candidate for trial in self.trials}, set[Candidate]()
        for trial in ledger.trials():
            if trial.kept is not None:
                self.pipeline.spare(trial.kept)
            if trial.candidate in known or trial.candidate is None:
                continue
            if self.budgets.of_time and trial.kept is not None and not trial.latencies:
                timed = self._timed_somewhere(trial, trial.kept.key, ledger)
                if timed is None:
                    left.add(trial.candidate)
                    continue
                trial = timed
            self.found(trial)
        return left

    def _timed_somewhere(self, trial: Trial, key: str, ledger: Ledger) -> Trial | None:
        """A trial of a worker whose machine does not count: timed here, or as it was timed where that counts.

        None where it has not been yet; what cannot be timed has no latencies.
        """
        if not self.times:
            known = ledger.times_of(key)
            return None if known is None else replace(trial, **known).answering(self.overhead_ms)
        found = self.with_times(trial)
        ledger.say_times(key, {"latencies": found.latencies, "memory_bytes": found.memory_bytes})
        return found

    def _too_late(self, base: Trial, candidate: Candidate | None) -> str | None:
        """Why it is not begun; None if it is. Of what the sampler will draw nothing is taken to be done before."""
        assert base.kept is not None
        if candidate is None:
            name = "more of Optuna's sampler"
            expected = LONGER_STEP * sum(self.longest.get(kind, SHORTEST) for kind in ("prune", QUANTIZED))
        else:
            name, expected = candidate.name, self.seconds_of(candidate.plan(self.settings.seed), base.kept)
        return self.no_time_for(name, expected)

    def no_time_for(self, name: str, seconds: float) -> str | None:
        """Why what takes so long is not begun; None if it is."""
        if seconds and self.settings.finish:
            return f"finished as asked, before {name}"
        if seconds and self.until - time.time() < seconds + self.comparing_s:
            return f"the time was up before {name}, which takes about {seconds:.0f} s"
        return None

    def _try(self, candidate: Candidate, base: Trial) -> Trial:
        assert base.kept is not None
        kept, plan = base.kept, candidate.plan(self.settings.seed)
        if self.seconds_of(plan, kept):
            self.show()
        self.tell(f"{TRYING}{candidate.name}")
        trial = Trial(candidate.name, candidate, plan)
        try:
            for step in plan.steps:
                kept = self.timed(step, kept)
        except SlimzooError as error:  # it misses its own gate; widths that cannot be reached
            return replace(trial, reason=reason_of(error))
        return self.with_times(self.measured(replace(trial, kept=kept), base))

    def measured(self, trial: Trial, base: Trial) -> Trial:
        assert trial.kept is not None
        assert trial.plan is not None
        lineage = read_config(trial.kept.path).lineage
        metrics, nats = current_metrics(lineage), nats_between(lineage, len(trial.plan.steps))
        trial = replace(trial, recovered=recovered(lineage))
        drop = drop_between(base.metrics or {}, metrics, self.settings.metric)
        return replace(trial, metrics=metrics, drop=drop, nats=nats)

    def timed(self, step: PlannedStep, source: Kept | None) -> Kept:
        """What the step makes, and how long such steps take."""
        kept = self.pipeline.done(step, source)
        self.longest[step.kind] = max(self.longest.get(step.kind, 0.0), kept.seconds)
        return kept

    def seconds_of(self, plan: Plan, base: Kept) -> float:
        """How long what is still to be done of it may take; 0 where nothing is. A first that trains takes as a fit."""
        source, expected = base, 0.0
        for step in plan.steps:
            key = self.pipeline.key(step, source)
            if not self.pipeline.is_done(step, source):
                trains = step.kind == step.verb
                seconds = self.longest.get(step.kind, self.longest.get("fit", SHORTEST) if trains else SHORTEST)
                expected += LONGER_STEP * seconds * max(1.0, getattr(step.settings, "recover", 0) / Prune().recover)
            source = Kept(self.pipeline.folder / key, key, 0.0, False)
        return expected

    def with_times(self, trial: Trial) -> Trial:
        """The same with its latencies on this machine, where they decide what is tried next."""
        kept = trial.kept
        if not self.budgets.of_time or not self.times or kept is None or trial.latencies:
            return trial
        terms = [kept.key, self.settings.threads, self.runtimes, machine()]
        found = self.timed_calmly("latency", terms, lambda: self._time(kept), trial.name)
        return self.with_costs(trial, found["latencies"], found["memories"])

    def with_costs(self, trial: Trial, here: Mapping[str, float], memories: Mapping[str, float]) -> Trial:
        """The same with what it takes where that counts, of what it takes here in each runtime."""
        latencies, memory_bytes = fitting(here, memories, self.budgets.memory_bytes)
        latencies = self.expected(latencies, int8=trial.is_int8)
        return replace(trial, latencies=latencies, memory_bytes=memory_bytes).answering(self.overhead_ms)

    def timed_calmly(self, kind: str, terms: Any, measure: Callable[[], dict[str, Any]], what: str) -> dict[str, Any]:
        """What is measured, once for these terms; where time decides and other work disturbs it, a few times anew."""
        if not self.budgets.of_time:
            return dict(self.pipeline.remembered(kind, terms, measure))
        for tries in range(BUSY_TRIES):
            if tries:
                self.tell(f"the machine is too busy to time {what}: trying again in {TOO_BUSY_S:.0f} s")
                time.sleep(TOO_BUSY_S)
            found: dict[str, Any] = self.pipeline.remembered(kind, terms, measure, keeps=_is_calm)
            if _is_calm(found):
                return found
        if found["disturbed"]:
            self.said.append(f"other work disturbed the machine while it timed {what}: take that for a guess")
        return found

    def expected(self, latencies: Mapping[str, float], *, int8: bool) -> dict[str, float]:
        """Where they count, of those here."""
        if self.target is None:
            return dict(latencies)
        return {name: self.target.there(ms, int8=int8) for name, ms in latencies.items()}

    def _time(self, kept: Kept) -> dict[str, Any]:
        file = kept.path / ONNX
        with self.pipeline.device.alone():
            if file.exists():
                return timed([file], self.runtimes, self.settings.threads)[0]
            loaded = load_model(str(kept.path))
            network = self.pipeline.folder / f"{kept.key}.onnx"
            network.write_bytes(export_network(loaded.model, loaded.config.input_size).SerializeToString())
            try:
                return timed([network], self.runtimes, self.settings.threads)[0]
            finally:
                network.unlink()

    def found(self, trial: Trial) -> Trial:
        """Keep what is known up to date, for a person to look at."""
        if not self.trials:
            self.tell(row(HEADER))
        self.trials.append(trial)
        timed = {t.candidate: t.latency_ms for t in self.trials if t.candidate is not None and t.latency_ms is not None}
        sizes = {t.candidate: size for t in self.trials if t.candidate is not None and (size := t.costs["size_bytes"])}
        self.promised = as_small(in_step(self.tables, timed), sizes)
        self.tell(trial.line(self.budgets))
        self.keep()
        return trial

    def keep(self) -> None:
        """What was tried, by which an interrupted search is known."""
        if self.work is not None:
            (self.work / CHECKPOINTS).mkdir(exist_ok=True)
            write_json(self.work / CHECKPOINTS / TRIALS, [each.document(self.budgets) for each in self.trials])

    def show(self) -> None:
        """Draw what was found, before something begins that takes a while."""
        if self.work is not None and self.shown < len(self.trials):
            with suppress(PermissionError):  # Windows', of a file that somebody looks at: the next time, then
                show(self.trials, self.budgets, self.work)
                self.shown = len(self.trials)


def _is_calm(found: dict[str, Any]) -> bool:
    """Whether what was measured is worth keeping: nothing disturbed it, and there is something."""
    return not found["disturbed"] and found.get("latencies") != {}
