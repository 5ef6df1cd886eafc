"""slimzoo bench: how fast models run on this machine, and how sure that is.

Each (model, runtime) runs in a process of its own, only one of them awake at a time. Rounds are interleaved and
reversed every second time (A B, B A, ...), so that what drifts meets all alike. After a few rounds every process is
started anew: where a model comes to lie in memory makes it up to a tenth faster or slower for as long as its process
lives, and would be taken for its speed. A second copy of the reference runs along: what is measured between the two
copies is the machine's noise, and a difference inside it is called a tie. A round in which other work took the
processors is measured again; it stays on record, and what is said rests on the others. No other sample is dropped.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.benchmark.answer import given_photos, make_photos, median_photo, takes_photos
from compress.benchmark.diagnosis import Throttling
from compress.benchmark.machine import default_threads, describe_machine
from compress.benchmark.outcome import outcome
from compress.benchmark.process import WorkerProcess
from compress.benchmark.rows import Row, names_of, rows_of
from compress.benchmark.runtimes import ONNX_FILE, RUNTIMES, bare_network
from compress.benchmark.table import Benchmark
from compress.benchmark.written import written
from compress.report.statistics import undisturbed
from transfer.result import StepResult
from zoo import lineage
from zoo.disk import check_file
from zoo.errors import SlimzooError, UsageError, did_you_mean, first_line
from zoo.files.manifest import verify_manifest
from zoo.files.model_directory import LoadedModel, is_model_directory, read_config
from zoo.files.onnx_session import ONNX_RUNTIMES
from zoo.pretrained.upstream import is_upstream
from zoo.progress import Progress

AT_MOST = 3  # times the rounds asked for, where the machine is busy


@dataclass(frozen=True)
class Settings:
    """How a benchmark is measured; see `bench`."""

    batch: int
    threads: int
    rounds: int
    launches: int
    seconds_per_round: float
    inputs: str | None


def bench(
    models: Sequence[str | Path | LoadedModel | StepResult],
    *,
    runtimes: Sequence[str] | None = None,
    threads: int | None = None,
    batch: int = 1,
    rounds: int = 16,
    launches: int | None = None,
    seconds_per_round: float = 0.2,
    inputs: str | Path | None = None,
    photos: Sequence[str | Path] | None = None,
    save: str | Path | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure the latency of networks from prepared tensors, all on the same threads.

    Args:
        models: model directories, ONNX files, "timm:NAME", "torchvision:NAME", models in memory or results of steps.
            The first one's onnxruntime row is the reference.
        runtimes: names in RUNTIMES; None measures every one that a model has a file for.
        threads: None is one per physical core.
        batch: images a run.
        rounds: of each row that nothing disturbed. On a busy machine up to three times as many are measured to find
            them.
        launches: processes of each row, one after the other, over which the rounds are spread; None is one for every
            two rounds. An interval is made of them, of the rounds if there is but one: it then knows nothing of what
            a process's memory does to its speed.
        seconds_per_round: how long a row runs in each round, about.
        inputs: a .npy file of prepared images (N, C, H, W); None is normal noise.
        photos: of which the way to the answer is measured, of models that take pictures: decoding, preparing, network.
            None is made ones of three sizes, and the median one of the images that the first model was fitted to, if
            they are where they were.
        save: where to write the result as JSON.
        progress: see `Progress`.

    Returns:
        A mapping, ready for JSON, whose text is a table: `rows`, `reference`, `noise`, `disturbed_share`, `diagnoses`,
        `machine`, `versions`, `settings`. A row that could not be measured has null for numbers and a `reason`.
        `ratio` is the speed-up over the reference, `ratio_ci` its 95% interval; both are null where the machine was too
        busy, and `ratio_range` is then what the rounds lie between. `peak_mb` is the host memory of the row's process,
        1 MB = 1e6 bytes; `p90_ms` and `p99_ms` are null where there are too few samples to bound them.

    Raises:
        SlimzooError: a model directory is not what its manifest says.
    """
    if isinstance(models, str | Path | LoadedModel | StepResult):
        models = [models]
    _check(models, runtimes, save)
    launches = max(1, rounds // 2) if launches is None else min(launches, rounds)
    if batch < 1 or rounds < 2 or launches < 1 or seconds_per_round <= 0:
        raise UsageError("wanted batch >= 1, rounds >= 2, launches >= 1 and seconds_per_round > 0")
    shown = None if photos is None else given_photos(photos)
    given = None if inputs is None else str(inputs)
    settings = Settings(batch, threads or default_threads(), rounds, launches, seconds_per_round, given)
    with tempfile.TemporaryDirectory() as folder:
        places = [written(model, Path(folder, str(number))) for number, model in enumerate(models)]
        result = Benchmark(_bench(places, runtimes, settings, shown, progress))
    if save is not None:
        result.write(Path(save))
    return result


def _bench(
    models: Sequence[str | Path],
    runtimes: Sequence[str] | None,
    settings: Settings,
    photos: dict[str, Path] | None,
    progress: Progress | None,
) -> dict[str, Any]:
    for model in models:
        if not is_upstream(model) and is_model_directory(Path(model)):
            verify_manifest(Path(model))
    machine = describe_machine()  # before the measurement, for the load average
    rows = [row for model, name in zip(models, names_of(models), strict=True) for row in rows_of(model, name, runtimes)]
    throttling = Throttling()
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            with _reason_for(row):
                _take_out(row, Path(folder))
        takers = [row for row in rows if row.deployed is not None]
        if takers and photos is None:
            photos = make_photos(Path(folder)) | _own_photo(takers[0])
        reference, twin = _measure(rows, settings, photos or {}, progress)
    result = outcome(rows, reference, twin, settings.batch, settings.threads, settings.rounds)
    result["diagnoses"] += throttling.said()
    recorded = asdict(settings) | {"inputs": settings.inputs or "normal noise, seed 0"}
    return {**result, "machine": machine, "versions": lineage.versions(), "settings": recorded}


def _check(models: Sequence[object], runtimes: Sequence[str] | None, save: str | Path | None) -> None:
    known = "known: " + ", ".join(RUNTIMES)
    for name in runtimes or ():
        if name not in RUNTIMES:
            raise UsageError(f"unknown runtime {name!r}; {did_you_mean(name, RUNTIMES, known)}")
    if not models:
        raise UsageError("wanted at least one model")
    if save is not None:
        check_file(Path(save), "--save")


def _own_photo(row: Row) -> dict[str, Path]:
    """The image of median size of those that a model directory's was fitted to, where they still are."""
    if not is_model_directory(Path(row.path)):
        return {}
    names = [(step.get("data") or {}).get("name") for step in read_config(Path(row.path)).lineage]
    folders = [Path(name) for name in names if name and Path(name).is_dir()]
    return median_photo(folders[0]) if folders else {}


def _measure(
    rows: Sequence[Row], settings: Settings, photos: dict[str, Path], progress: Progress | None
) -> tuple[Row | None, Row | None]:
    """Fill the rows with rounds; the reference among them, and its twin, which says how noisy the machine is."""
    say = progress or (lambda what, done, total, note: None)
    reference: Row | None = None
    everyone, measured = list(rows), 0
    for launch, more in enumerate(_dealt(settings.rounds, settings.launches)):
        with contextlib.ExitStack() as stack:
            workers: list[tuple[Row, WorkerProcess]] = []
            for row in reversed(everyone) if launch % 2 else everyone:
                if launch == 0:
                    say("opening", len(workers), len(rows), f"{row.model} in {row.runtime}")
                _start(row, settings, stack, workers)
            if launch == 0 and (reference := _reference(rows)) is not None:
                everyone.append(twin := reference.twin())
                _start(twin, settings, stack, workers)
            wanted = measured + more
            for number in _rounds(more, reference, workers):
                say(
                    "measuring",
                    measured,
                    settings.rounds,
                    "rounds" if number < more else "rounds, after a disturbed one",
                )
                for row, worker in reversed(workers) if number % 2 else workers:
                    _one_round(row, worker, launch, settings.seconds_per_round)
                measured = min(measured + 1, wanted)
            for row, worker in workers:
                _answer(row, worker, photos)
        if _hopeless(reference, everyone, settings.rounds):
            break
    say("measuring", settings.rounds, settings.rounds, "rounds")
    return reference, everyone[-1] if reference is not None else None


def _dealt(rounds: int, launches: int) -> list[int]:
    """How many rounds each launch has."""
    return [rounds // launches + (launch < rounds % launches) for launch in range(launches)]


def _start(row: Row, settings: Settings, stack: contextlib.ExitStack, workers: list[tuple[Row, WorkerProcess]]) -> None:
    """Open a row's model in a process of its own, and add it to the workers; what fails is the row's reason."""
    if row.reason is not None:
        return
    with _reason_for(row):
        worker = stack.enter_context(WorkerProcess(settings.threads))
        given = {"runtime": row.runtime, "path": row.taken_out or row.path, "precision": row.precision}
        opened = worker.ask("open", **given, threads=settings.threads, batch=settings.batch, inputs=settings.inputs)
        worker.run_ms = worker.ask("warm_up", seconds=settings.seconds_per_round)["run_ms"]
        row.opened.append(opened)
        workers.append((row, worker))


def _rounds(wanted: int, reference: Row | None, workers: Sequence[tuple[Row, WorkerProcess]]) -> Iterator[int]:
    """Numbers of rounds, until each row has as many undisturbed ones as wanted in this launch, within the limit.

    What is compared is pairs of one round, so a round counts for a row where the reference was left alone as well.
    """
    for number in range(AT_MOST * wanted):
        live = [row.taken[-number:] if number else [] for row, _ in workers if row.reason is None]
        base = reference.taken[-number:] if number and reference is not None and reference.reason is None else []
        if not live or all(len(undisturbed(base or taken, taken)) >= wanted for taken in live):
            return
        yield number


def _hopeless(reference: Row | None, rows: Sequence[Row], rounds: int) -> bool:
    """Whether as many rounds as were asked for went by without one in which the reference and another were left alone.

    Then the rest of the limit would but find the same.
    """
    if reference is None or len(reference.taken) < rounds:
        return False
    return not any(
        undisturbed(reference.taken, row.taken) for row in rows if row.reason is None and row is not reference
    )


def _reference(rows: Sequence[Row]) -> Row | None:
    ready = [row for row in rows if row.opened]
    firsts = [row for row in ready if row.model == rows[0].model and row.runtime == "onnxruntime"]
    return next(iter(firsts + ready), None)


@contextlib.contextmanager
def _reason_for(row: Row) -> Iterator[None]:
    """What goes wrong in the block is why `row` was not measured."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, SlimzooError)
        row.reason = first_line(error) if known else f"{type(error).__name__}: {error}"
        row.opened, row.rounds, row.taken, row.launches = [], [], [], []


def _take_out(row: Row, folder: Path) -> None:
    """Write the network of an ONNX file to one of its own, so that the worker need not import onnx to take it out."""
    if row.reason is None and row.runtime in ONNX_RUNTIMES:
        network = folder / f"{sum(1 for _ in folder.iterdir())}.onnx"
        row.precision = bare_network(Path(row.path), network)
        row.taken_out = str(network)
        file = Path(row.path, ONNX_FILE) if Path(row.path).is_dir() else Path(row.path)
        row.deployed = str(file) if row.runtime == "onnxruntime" and takes_photos(file) else None


def _one_round(row: Row, worker: WorkerProcess, launch: int, seconds: float) -> None:
    if row.reason is None:
        with _reason_for(row):
            answer = worker.ask("measure", runs=max(1, round(1000 * seconds / worker.run_ms)))
            row.rounds.append(answer["ms"])
            row.taken.append(answer["taken"])
            row.launches.append(launch)
            row.peak_bytes = max(row.peak_bytes or 0, answer["peak_bytes"])


def _answer(row: Row, worker: WorkerProcess, photos: dict[str, Path]) -> None:
    """Take the way from each photo to its answer, by the exported file of a row that has one."""
    if row.reason is None and row.deployed is not None and photos:
        with _reason_for(row):
            found = worker.ask("answer", path=row.deployed, photos={name: str(file) for name, file in photos.items()})
            for name, parts in found["photos"].items():
                row.answers.setdefault(name, []).append(parts)
            row.answer_bytes = max(row.answer_bytes or 0, found["peak_bytes"])
