"""`compress`: from images or a fitted model, and a budget, to the model that meets it, and the report that shows it."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.benchmark.runtimes import precision_of
from compress.deployment.export import network_of
from compress.plan.beginning import Sources, begin, check_images, check_plan, fit_of, shares_of, sources_of
from compress.plan.cuts import Cuts, of_file, of_students
from compress.plan.elsewhere import Target, measured_there, target_of
from compress.plan.following import follow
from compress.plan.ledger import Ledger, check_database, opened
from compress.plan.outcome import Compressed, Outcome, deliver
from compress.plan.pipeline import Pipeline, code, inputs_of
from compress.plan.plan import Plan
from compress.plan.promises import Promised, as_they_are, interpolated, measured, overhead, photo_of
from compress.plan.search import least_promised, promises_any
from compress.plan.searching import Search
from compress.plan.settings import Compress
from compress.plan.side_by_side import compare
from compress.plan.timing import RUNTIMES, check_runtimes, machine, runtimes_here, timed
from compress.plan.trial import NAMES, Candidate, Trial
from compress.quantization.cpu import best_scheme
from compress.verbs import COMPRESS
from transfer.data.dataset import open_data
from transfer.data.sources import Data
from transfer.fitting.start import start
from zoo.call import Call, takes
from zoo.disk import sha256
from zoo.errors import GateError, SlimzooError, UsageError
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import ONNX, LoadedModel, is_model_directory, load_model, read_config
from zoo.lineage import located, versions
from zoo.shell import pasteable

STUDY = "search.db"  # among the checkpoints
# That measuring side by side is taken to take before it was done, and its most share of the time
COMPARING_S, COMPARING_SHARE = 60.0, 0.1


@takes(COMPRESS)
def compress(source: str | Path | Data, settings: Compress, call: Call) -> Compressed:
    """Fit if SOURCE is images, search for the model that meets the budgets, and write it with what was tried.

    `out`/model is the chosen one, with deploy/; `out`/variants all that were tried, `out`/report.html how they compare,
    `out`/plan.yaml the steps to the chosen one. Steps that were done before, in whatever run, are not done again.

    Args:
        source: images; a model directory or an ONNX file that was fitted to `data`; "timm:NAME" or "torchvision:NAME",
            which is fitted to `data` first.
        settings: see `Compress`.
        call: `data` are the images, where `source` is a model.

    Returns:
        The outcome; `met` says whether a model meets the budgets. Where none does, there is no `out`/model.

    Raises:
        UsageError: what `source` is; no data; a plan that cannot work.
        GateError: no network of these widths can meet the budgets, by what they cost before any is trained.
    """
    sources = sources_of(source, call.data, settings)
    settings, images = sources.settings, sources.images
    if call.out is None:
        raise UsageError("compress writes a directory: name it with --out")
    given = None if settings.plan is None else Plan.read(settings.plan, seed=settings.seed)
    check_plan(given, sources)
    check_runtimes(settings.runtime)
    if settings.study is not None:
        check_database(settings.study)
    if settings.answer is not None:
        photo_of(Path(images))
    begun = replace(call, settings=call.settings.model_copy(update={"finish": False}))  # which another run need not
    run, began = begun.run(), time.monotonic()
    with run.directory() as work:

        def progress(title: str, done: int, total: int, note: str = "") -> None:
            if call.progress is not None:
                call.progress(title, done, total, f"{note}  {search.state()}".strip())

        pipeline = Pipeline(images, progress=progress, tell=partial(_tell, call))
        runtimes = RUNTIMES[:1] if settings.latency_from else settings.runtime or runtimes_here()
        search = Search(pipeline, settings, runtimes, call.tell, work)
        search.shares = shares_of(sources)
        search.target = _target(search, sources.first)
        _keep_to(search, settings.time_s, began)
        if sources.model is not None:
            check_images(search, sources.model)
        about = _about(search, sources)
        if given is None:
            _promise(search, sources, about)
        fitted = fit_of(given, settings) if sources.fits else None
        if given is not None:
            follow(search, begin(search, sources.first, fitted), given)
            compare(search, work, Path(call.out))
        else:
            with _shared(search, about, work) as ledger:
                _run(search, begin(search, sources.first, fitted), ledger, work, Path(call.out))
        return deliver(Outcome(search, fitted, str(images)), work, Path(call.out))


def _keep_to(search: Search, time_s: float | None, began: float) -> None:
    """All of it may take so long, since `began` by the monotonic clock."""
    if time_s is not None:
        search.until = time.time() + time_s - (time.monotonic() - began)
        search.comparing_s = min(COMPARING_S, COMPARING_SHARE * time_s)


def _run(search: Search, base: Trial, ledger: Ledger, work: Path, out: Path) -> None:
    """Search, measure side by side what was found, and go on by that until nothing is left to try: what would be chosen
    recovers longer, or takes more time than it took alone."""
    tried = 0
    search.run(base, ledger)
    while len(search.trials) > tried:
        began = time.monotonic()
        compare(search, work, out)
        tried, search.comparing_s = len(search.trials), time.monotonic() - began
        search.run(base, ledger)


def _tell(call: Call, line: str) -> None:
    """What a step says, but for checks that went well."""
    if not line.startswith("ok "):
        call.tell(f"  {line}")


def _target(search: Search, source: str | Path) -> Target | None:
    """The other machine, where latencies of one are wanted."""
    settings, folder = search.settings, search.pipeline.folder
    if not settings.latency_from:
        return None
    beside = [Path(source), *Path(source).parent.glob("*/")] if is_model_directory(Path(source)) else []
    name, found = measured_there(settings.latency_from, [*folder.glob("*/"), *beside])
    files = [each.file for each in found]
    terms = [[sha256(file) for file in files], settings.threads, machine()]

    def here() -> dict[str, Any]:
        with search.pipeline.device.alone():
            rows = timed(files, [RUNTIMES[0]], settings.threads)
        return {"rows": rows, "disturbed": any(row["disturbed"] for row in rows)}

    rows = search.timed_calmly("elsewhere", terms, here, "the models that were measured there")["rows"]
    points = [
        (precision_of(network_of(each.file)), row["latencies"][RUNTIMES[0]], each.there_ms)
        for each, row in zip(found, rows, strict=True)
        if row["latencies"]
    ]
    if not points:
        raise SlimzooError(f"--latency-from: none of the models that were measured on {name} could be timed here")
    return target_of(name, points)


def _about(search: Search, sources: Sources) -> dict[str, Any]:
    """What the search is of, for its workers."""
    pipeline, settings, fits = search.pipeline, search.settings, sources.fits
    fixed = inputs_of(settings) | {"finish": False, "study": None}
    fixed |= {} if fits else {"time_s": None}  # on which a fit depends, and no trial
    model = None if fits else pipeline.begin(sources.first).key
    terms = [pipeline.content, model, fixed, code(), versions(), machine() if search.budgets.of_time else None]
    return {
        "source": located(sources.first),
        "data": None if fits else located(sources.images),
        "content": pipeline.content,
        "model": model,
        "settings": settings.arguments(located),
        "seed": settings.seed,
        "runtimes": list(search.runtimes),
        "shares": list(search.shares),
        "target": None if search.target is None else search.target.record(),
        "machine": machine(),
        "int8": str(best_scheme()),
        "code": code(),
        "host": platform.node(),
        "steps": str(pipeline.folder),
        "name": hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:16],
    }


@contextmanager
def _shared(search: Search, about: dict[str, Any], work: Path) -> Iterator[Ledger]:
    """The ledger of the search, for workers to join."""
    ledger = _ledger(search, about, work)
    try:
        ledger.allow(0.0 if search.settings.finish else search.until - time.time())
        helping = pasteable(["slimzoo", "compress", "--worker", ledger.place])
        search.tell(f"to help from another terminal: {helping}")
        yield ledger
        ledger.finish()
    finally:
        ledger.close()


def _ledger(search: Search, about: dict[str, Any], work: Path) -> Ledger:
    (work / CHECKPOINTS).mkdir(exist_ok=True)
    (search.pipeline.folder / about["name"]).touch()  # by which a worker sees that it keeps its steps there too
    url = search.settings.study or f"sqlite:///{(work / CHECKPOINTS / STUDY).absolute()}"
    return opened(url, about["name"], about, seed=search.settings.seed)


def _promise(search: Search, sources: Sources, about: dict[str, Any]) -> None:
    """What candidates will cost, measured before anything is trained.

    Raises:
        GateError: none can meet the budgets.
    """
    pipeline, settings, source = search.pipeline, search.settings, sources.first
    kept = None if sources.fits else pipeline.begin(source)
    terms: list[Any] = [inputs_of(settings)["model"] if kept is None else kept.key]

    def found() -> dict[str, Any]:
        if kept is not None and not search.shares:
            config, networks, cuts = read_config(kept.path), of_file(kept.path / ONNX), None
        else:
            loaded = _unfitted(source, settings.model) if kept is None else load_model(kept.path)
            cuts = Cuts(loaded, pipeline.progress)
            config, networks = loaded.config, cuts.ends()
        measure = partial(measured, runtimes=search.runtimes, threads=settings.threads, progress=pipeline.progress)
        if search.budgets.costs and cuts is not None and settings.answer is None and not settings.student:
            with pipeline.device.alone():
                _check_ends(search, measure(networks))
        networks += [] if cuts is None else cuts.others()
        if settings.student:
            networks += of_students(settings.student, open_data(str(pipeline.data)), pipeline.progress)
        with pipeline.device.alone():
            costs = measure(networks)
            before, disturbed = 0.0, any(each["disturbed"] for each in costs)
            if settings.answer is not None:
                before, also = overhead(networks[0][1], config, Path(str(pipeline.data)))
                disturbed |= also
        return {"networks": costs, "overhead_ms": before, "disturbed": disturbed}

    terms += [
        pipeline.content,
        settings.student,
        settings.threads,
        search.runtimes,
        settings.answer is not None,
        machine(),
    ]
    promised = search.timed_calmly("promises", terms, found, "what cuts would save")
    about |= {"networks": promised["networks"], "overhead_ms": promised["overhead_ms"]}
    search.networks, search.overhead_ms = promised["networks"], promised["overhead_ms"]
    search.promise(interpolated(search.networks, search.shares, search.overhead_ms))
    search.tell(_promises_said(search.promised))
    _check_promises(search, disturbed=promised["disturbed"])


def _check_ends(search: Search, ends: Sequence[dict[str, Any]]) -> None:
    """Find out soon, by a few networks, what no other will change; unless other work disturbed that.

    Raises:
        GateError: see `_check_promises`.
    """
    if not any(each["disturbed"] for each in ends):
        search.promise(as_they_are(ends))
        _check_promises(search)


def _check_promises(search: Search, *, disturbed: bool = False) -> None:
    """
    Args:
        disturbed: whether other work disturbed what was timed, so that it proves nothing.

    Raises:
        GateError: nothing promises to meet the budgets.
    """
    budgets = replace(search.budgets, latency_ms=None, answer_ms=None) if disturbed else search.budgets
    if promises_any(budgets, search.promised):
        return
    nearest = least_promised(budgets, search.promised)
    assert nearest is not None
    candidate, over = nearest
    most = ", ".join(f"{times:.2g} times the {NAMES[name]} allowed" for name, times in over.items() if times > 1)
    raise GateError(
        f"no network of this kind meets the budget: the nearest, {candidate.name}, takes {most}; allow more, or "
        "start from a smaller --model"
    )


def _unfitted(source: str | Path, name: str) -> LoadedModel:
    """The network that a fit will train, of the same shapes."""
    network, config = start(name, open_data(source), "probe", None, None)
    return LoadedModel(network.eval(), config)


def _promises_said(promised: Promised) -> str:
    """What the tables promise, in a line."""
    parts = []
    shares = sorted({c.share for c in promised if c.share is not None and not c.resized}, reverse=True)
    shown = {share: None for share in (shares[len(shares) // 2], shares[-1])} if shares else {}
    students = [candidate for candidate in promised if candidate.student is not None and candidate.int8]
    small = [Candidate(share, int8=True) for share in shown]
    less = sorted((c for c in promised if c.blocks and c.int8 and c.share in shown), key=lambda c: c.blocks)[-1:]
    for candidate in (Candidate(), Candidate(int8=True), *small, *less, *students):
        costs = promised.get(candidate, {})
        if "latency_ms" in costs:
            name = "as it is" if candidate == Candidate() else candidate.name
            parts.append(f"{name} {costs['latency_ms']:.3g} ms, {costs['size_bytes'] / 1e6:.3g} MB")
    return "what is promised before any training: " + "; ".join(parts)
