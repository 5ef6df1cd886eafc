"""`compress`: from images or a fitted model, and a budget, to the model that meets it, and the report that shows it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from compress.benchmark.harness import bench
from compress.benchmark.machine import describe_machine
from compress.graph.network import export_network
from compress.plan.front import FRONT, front_so_far
from compress.plan.outcome import Compressed, Outcome, deliver
from compress.plan.pipeline import Kept, Pipeline
from compress.plan.plan import Plan, PlannedStep
from compress.plan.promises import Promised, interpolated, measured
from compress.plan.search import SHARES, least_promised, next_candidate, promises_any
from compress.plan.settings import Budgets, Compress
from compress.plan.trial import BASE, NAMES, Candidate, Trial, drop_between, nats_between
from compress.verbs import COMPRESS
from transfer.data.dataset import open_data
from transfer.data.sources import Data
from transfer.data.split import VAL
from transfer.fitting.settings import Fit
from transfer.fitting.start import start
from zoo.call import Call, takes
from zoo.disk import write_json
from zoo.errors import GateError, UsageError
from zoo.files.manifest import CHECKPOINTS, TRIALS
from zoo.files.model_directory import ONNX, LoadedModel, is_model_directory, load_model, read_config
from zoo.lineage import current_metrics
from zoo.pretrained.upstream import is_upstream

FIT_SHARE = 0.4  # of the time that is given for all
SHORTEST = 10.0  # seconds that a step may take of which nothing is known
LONGER = 1.5  # times as long as the longest step of its kind a next one may take
QUICK = {"rounds": 6, "launches": 3, "seconds_per_round": 0.1}  # of a trial's latency, where that decides what is next


@takes(COMPRESS)
def compress(source: str | Path | Data, settings: Compress, call: Call) -> Compressed:
    """Fit if SOURCE is images, search for the model that meets the budgets, and write it with what was tried.

    `out`/model is the chosen one, with deploy/; `out`/variants all that were tried, `out`/report.html how they compare,
    `out`/plan.yaml the steps to the chosen one. Steps that were done before, in whatever run, are not done again.

    Args:
        source: images, or a model directory that was fitted to `data`.
        settings: see `Compress`.
        call: `data` are the images of the model's fit, where `source` is a model.

    Returns:
        The outcome; `met` says whether a model meets the budgets. Where none does, there is no `out`/model.

    Raises:
        UsageError: what `source` is; no data; a plan that cannot work.
        GateError: no network of these widths can meet the budgets, by what they cost before any is trained.
    """
    images = images_of(source, call.data)
    if call.out is None:
        raise UsageError("compress writes a directory: name it with --out")
    given = None if settings.plan is None else Plan.read(settings.plan)
    check_plan(given, fits=images is source)
    run = call.run()
    with run.directory() as work:
        pipeline = Pipeline(images, progress=call.progress, tell=partial(_tell, call))
        search = _Search(pipeline, settings, call, work, time.monotonic())
        if given is None:
            search.promise(source, fits=images is source)
        base = search.begin(source, given, fits=images is source)
        if given is None:
            search.run(base)
        else:
            search.follow(base, given)
        outcome = search.outcome()
        return deliver(outcome, work, Path(call.out), progress=call.progress)


def _tell(call: Call, line: str) -> None:
    """What a step says, but for checks that went well."""
    if not line.startswith("ok "):
        call.tell(f"  {line}")


def images_of(source: str | Path | Data, data: str | Path | Data | None) -> str | Path:
    """The labelled images of the whole run.

    Raises:
        UsageError: a model without them, images twice, or a source of another kind.
    """
    named = str(source)
    if isinstance(source, Data) or isinstance(data, Data):
        raise UsageError("compress takes images that lie somewhere: steps are kept by what is in the files")
    if named.endswith(".onnx"):
        raise UsageError(f"{source}: of an ONNX file only int8 can be made, which `slimzoo quantize {source}` does")
    if is_upstream(named):
        raise UsageError(f"{source} is fitted to images first: `slimzoo compress DATA --model {named}`")
    if is_model_directory(Path(named)):
        if data is None:
            raise UsageError(f"{source} is a model: name the images of its fit with --data, by which losses are judged")
        return data
    if data is not None:
        raise UsageError(f"{source} is taken for images, so that --data {data} is one source too many; leave it out")
    return source


def check_plan(plan: Plan | None, *, fits: bool) -> None:
    if plan is not None and not fits and "fit" in plan.verbs:
        raise UsageError("the plan begins with a fit, and SOURCE is fitted already: leave out the fit, or name images")


@dataclass
class _Search:
    """A search at work.

    Attributes:
        work: the directory in work, where what was tried is kept up to date.
        began: by the monotonic clock.
        longest: seconds that the steps of each verb took at most.
    """

    pipeline: Pipeline
    settings: Compress
    call: Call
    work: Path
    began: float
    trials: list[Trial] = field(default_factory=list)
    promised: Promised = field(default_factory=dict)
    longest: dict[str, float] = field(default_factory=dict)
    fitted: PlannedStep | None = None
    said: list[str] = field(default_factory=list)

    @property
    def budgets(self) -> Budgets:
        return self.settings.budgets

    def promise(self, source: Any, *, fits: bool) -> None:
        """What candidates will cost, measured before anything is trained.

        Raises:
            GateError: none can meet the budgets.
        """
        loaded: Callable[[], LoadedModel] = partial(load_model, str(source))
        terms: list[Any] = [str(source), self.pipeline.content, self.settings.model]
        if fits:
            loaded = partial(_unfitted, source, self.settings.model)
        else:
            terms = [self.pipeline.begin(source).key]
        networks = self.pipeline.remembered(
            "promises",
            [terms, self.settings.threads, _machine()],
            lambda: measured(loaded(), threads=self.settings.threads, progress=self.call.progress),
        )
        self.promised = interpolated(networks, SHARES)
        self.call.tell(_promises_said(self.promised))
        if not promises_any(self.budgets, self.promised):
            nearest = least_promised(self.budgets, self.promised)
            assert nearest is not None
            candidate, over = nearest
            most = ", ".join(
                f"{times:.2g} times the {NAMES[name]} allowed" for name, times in over.items() if times > 1
            )
            raise GateError(
                f"no network of this kind meets the budget: the nearest, {candidate.name}, takes {most}; allow more, "
                "or start from a smaller --model"
            )

    def begin(self, source: Any, plan: Plan | None, *, fits: bool) -> Kept:
        """The fitted model, as the first trial."""
        if not fits:
            base = self.pipeline.begin(source)
        else:
            step = fit_of(plan, self.settings)
            self.fitted = step
            self.call.tell(f"fitting {self.settings.model} to {source}")
            base = self._timed(step, None)
        metrics = current_metrics(read_config(base.path).lineage)
        if not metrics.get(VAL, {}).get("correct"):
            raise UsageError(
                f"{base.path} has no answers to validation images, by which losses are judged: fit it with --val"
            )
        self._found(Trial(BASE, Candidate(), None, base, metrics, drop_between(metrics, metrics), self._latency(base)))
        return base

    def run(self, base: Kept) -> None:
        """Try candidates until nothing more could be better, or the time is up."""
        while (candidate := next_candidate(self.trials, self.budgets, self.promised, SHARES)) is not None:
            plan = candidate.plan(self.settings.seed)
            if (expected := self._seconds_of(plan, base)) and self.settings.finish:
                self.said.append(f"finished as asked, before {candidate.name}")
                return
            if expected and self._left() < expected:
                self.said.append(f"the time was up before {candidate.name}, which takes about {expected:.0f} s")
                return
            self._try(candidate.name, plan, base, candidate)

    def follow(self, base: Kept, plan: Plan) -> None:
        """The one plan that a person wrote."""
        if rest := plan.after_fit:
            self._try("-".join(step.verb for step in rest), Plan(rest), base, None)

    def outcome(self) -> Outcome:
        return Outcome(self.trials, self.settings, self.fitted, self.said, str(self.pipeline.data))

    def _try(self, name: str, plan: Plan, base: Kept, candidate: Candidate | None) -> None:
        self.call.tell(f"trying {name}")
        kept = base
        try:
            for step in plan.steps:
                kept = self._timed(step, kept)
        except GateError as error:
            self._found(Trial(name, candidate, plan, reason=str(error)))
            return
        except UsageError as error:
            if candidate is None:
                raise
            self._found(Trial(name, candidate, plan, reason=str(error)))  # widths that cannot be reached
            return
        base_metrics = self.trials[0].metrics or {}
        lineage = read_config(kept.path).lineage
        metrics, nats = current_metrics(lineage), nats_between(lineage, len(plan.steps))
        drop = drop_between(base_metrics, metrics)
        promised = None if candidate is None else self.promised.get(candidate, {}).get("latency_ms")
        latency = self._latency(kept)
        self._found(Trial(name, candidate, plan, kept, metrics, drop, latency, nats=nats, promised_ms=promised))

    def _timed(self, step: PlannedStep, source: Kept | None) -> Kept:
        kept = self.pipeline.done(step, source)
        self.longest[step.verb] = max(self.longest.get(step.verb, 0.0), kept.seconds)
        return kept

    def _left(self) -> float:
        """Seconds."""
        most = self.settings.time_s
        return math.inf if most is None else most - (time.monotonic() - self.began)

    def _seconds_of(self, plan: Plan, base: Kept) -> float:
        """How long what is still to be done of it may take; 0 where nothing is. A first of its kind takes as a fit."""
        source, expected = base, 0.0
        for step in plan.steps:
            key = self.pipeline.key(step, source)
            if not self.pipeline.is_done(step, source):
                expected += LONGER * self.longest.get(step.verb, self.longest.get("fit", SHORTEST))
            source = Kept(self.pipeline.folder / key, key, 0.0, False)
        return expected

    def _latency(self, kept: Kept) -> float | None:
        """In milliseconds, where that decides what is tried next."""
        if self.budgets.latency_ms is None:
            return None

        def make() -> float | None:
            file = kept.path / ONNX
            if file.exists():
                models: list[str | Path] = [file]
                return _median(models, self.settings.threads)
            loaded = load_model(str(kept.path))
            network = self.work / "network.onnx"
            network.write_bytes(export_network(loaded.model, loaded.config.input_size).SerializeToString())
            try:
                return _median([network], self.settings.threads)
            finally:
                network.unlink()

        found: float | None = self.pipeline.remembered("latency", [kept.key, self.settings.threads, _machine()], make)
        return found

    def _found(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.call.tell(trial.line(self.budgets))
        (self.work / CHECKPOINTS).mkdir(exist_ok=True)
        write_json(self.work / CHECKPOINTS / TRIALS, [each.document(self.budgets) for each in self.trials])
        if (drawn := front_so_far(self.trials, self.budgets)) is not None:
            (self.work / FRONT).write_bytes(drawn)


def _machine() -> dict[str, Any]:
    """What a latency depends on."""
    return {key: value for key, value in describe_machine().items() if key != "load_average"}


def _median(models: Sequence[str | Path], threads: int | None) -> float | None:
    row = bench(models, runtimes=["onnxruntime"], threads=threads, photos=[], **QUICK).rows[0]  # type: ignore[arg-type]
    found: float | None = row["median_ms"]
    return found


def _unfitted(source: str | Path, name: str) -> LoadedModel:
    """The network that a fit will train, of the same shapes."""
    network, config = start(name, open_data(source), "probe", None, None)
    return LoadedModel(network.eval(), config)


def fit_of(plan: Plan | None, settings: Compress) -> PlannedStep:
    if plan is not None and "fit" in plan.verbs:
        return plan.steps[0]
    time_s = None if settings.time_s is None else FIT_SHARE * settings.time_s
    return PlannedStep("fit", Fit(model=settings.model, seed=settings.seed, time_s=time_s))


def _promises_said(promised: Promised) -> str:
    """What the tables promise, in a line."""
    parts = []
    for candidate in (Candidate(), Candidate(int8=True), *(Candidate(s, int8=True) for s in (0.5, 0.22))):
        costs = promised.get(candidate, {})
        if "latency_ms" in costs:
            name = "as it is" if candidate == Candidate() else candidate.name
            parts.append(f"{name} {costs['latency_ms']:.3g} ms, {costs['size_bytes'] / 1e6:.3g} MB")
    return "what is promised before any training: " + "; ".join(parts)
