"""The launches of a benchmark: processes are started, measured in turns, and end, until every row has its rounds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.benchmark.answer import takes_photos
from compress.benchmark.process import WorkerProcess
from compress.benchmark.rows import Row, compared
from compress.benchmark.runtimes import ONNX_FILE, bare_network
from compress.benchmark.unfinished import Unfinished, fill
from compress.report.statistics import Ratio, undisturbed
from zoo.errors import SlimzooError, first_line
from zoo.files.onnx_session import ONNX_RUNTIMES
from zoo.progress import Progress

AT_MOST = 3  # times the rounds asked for, where the machine is busy, and times the launches, where it wanders
SURE_PCT = 5.0  # half of the interval between two copies of one model, at which nothing more is measured
AT_MOST_S = 130.0  # for all launches together, where more than were asked for are measured
JUDGED = 6  # launches, of fewer their interval says little: of three, Student's t is 4.3


@dataclass(frozen=True)
class Settings:
    """How a benchmark is measured; see `compress.benchmark.harness.bench`."""

    batch: int
    threads: int
    rounds: int
    launches: int
    seconds_per_round: float
    inputs: str | None


def measure(
    rows: Sequence[Row],
    settings: Settings,
    photos: Mapping[str, Path],
    unfinished: Unfinished,
    progress: Progress | None,
) -> tuple[Row | None, Row | None]:
    """Fill the rows with rounds; the reference among them, and its twin, which says how noisy the machine is."""
    say = progress or (lambda what, done, total, note: None)
    began, (done, kept) = time.monotonic(), unfinished.restore(rows)
    reference = reference_of(rows)
    everyone, dealt = list(rows), _dealt(settings.rounds, settings.launches)
    if reference is not None and kept is not None:
        everyone.append(reference.twin())
        fill(everyone[-1], kept)
    with unfinished.kept():
        for launch in range(AT_MOST * settings.launches):
            if launch < done:
                continue
            turn, at = divmod(launch, settings.launches)
            if turn and at == 0 and _sure(reference, everyone[-1], settings, (time.monotonic() - began) / turn):
                break
            wanted = dealt[at]
            with contextlib.ExitStack() as stack:
                workers: list[tuple[Row, WorkerProcess]] = []
                if launch == 0:  # one after the other: how long a cold start takes is measured too
                    for row in rows:
                        say("opening", len(workers), len(rows), f"{row.model} in {row.runtime}")
                        _start([row], settings, stack, workers)
                    if (reference := reference_of(rows)) is not None:
                        everyone.append(reference.twin())
                        _start(everyone[-1:], settings, stack, workers)
                else:
                    _start(everyone[::-1] if launch % 2 else everyone, settings, stack, workers)
                for number in _rounds(wanted, reference, workers):
                    note = "rounds" if number < wanted else "rounds, after a disturbed one"
                    note = f"more {note}: two copies of one model still differ" if turn else note
                    reached = turn * settings.rounds + sum(dealt[:at]) + min(number, wanted)
                    say("measuring", reached, (turn + 1) * settings.rounds, note)
                    for row, worker in reversed(workers) if number % 2 else workers:
                        _one_round(row, worker, launch, settings.seconds_per_round)
                for row, worker in workers:
                    _answer(row, worker, photos)
            unfinished.keep(rows, everyone[-1] if reference is not None else None, launch + 1)
            if _hopeless(reference, everyone, settings.rounds):
                break
    say("measuring", settings.rounds, settings.rounds, "rounds")
    return reference, everyone[-1] if reference is not None else None


def _dealt(rounds: int, launches: int) -> list[int]:
    """How many rounds each launch has."""
    return [rounds // launches + (launch < rounds % launches) for launch in range(launches)]


def _start(
    rows: Sequence[Row], settings: Settings, stack: contextlib.ExitStack, workers: list[tuple[Row, WorkerProcess]]
) -> None:
    """Open rows' models side by side, each in a process of its own; then warm them up in turn, and add the workers.

    What fails is the row's reason.
    """
    begun: list[tuple[Row, WorkerProcess]] = []
    for row in rows:
        if row.reason is None:
            with reason_for(row):
                worker = stack.enter_context(WorkerProcess(settings.threads))
                given = {"runtime": row.runtime, "path": row.taken_out or row.path, "precision": row.precision}
                worker.send("open", **given, threads=settings.threads, batch=settings.batch, inputs=settings.inputs)
                begun.append((row, worker))
    for row, worker in begun:
        with reason_for(row):
            opened = worker.answer("open")
            row.opened = row.opened or opened
    for row, worker in begun:
        if row.reason is None:
            with reason_for(row):
                worker.run_ms = worker.ask("warm_up", seconds=settings.seconds_per_round)["run_ms"]
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


def _sure(reference: Row | None, twin: Row, settings: Settings, turn_s: float) -> bool:
    """Whether it is known how two copies of one model differ, or more would not tell, or take too long.

    The processors of a virtual machine come to lie nearer together or further apart from one second to the next, and
    two threads wait longer for each other, in small networks by half of their time: what a few processes meet in half a
    minute says little of the next.
    """
    if reference is None or settings.launches < JUDGED or len(reference.taken) >= AT_MOST * settings.rounds:
        return True
    turns = max(reference.launches, default=0) // settings.launches + 1
    if turn_s * (turns + 1) > AT_MOST_S:
        return True
    found = compared(reference, twin, settings.rounds)
    return not isinstance(found, Ratio) or found.hi / found.lo <= (1 + SURE_PCT / 100) ** 2


def reference_of(rows: Sequence[Row]) -> Row | None:
    """The first model's row in onnxruntime, or else the first of all that could be opened."""
    ready = [row for row in rows if row.opened]
    firsts = [row for row in ready if row.model == rows[0].model and row.runtime == "onnxruntime"]
    return next(iter(firsts + ready), None)


@contextlib.contextmanager
def reason_for(row: Row) -> Iterator[None]:
    """What goes wrong in the block is why `row` was not measured."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, SlimzooError)
        row.reason = first_line(error) if known else f"{type(error).__name__}: {error}"
        row.opened, row.rounds, row.device_rounds = {}, [], []
        row.taken, row.joules, row.launches, row.answers = [], [], [], {}


def take_out(row: Row, folder: Path) -> None:
    """Write the network of an ONNX file to one of its own, so that the worker need not import onnx to take it out."""
    if row.reason is None and row.runtime in ONNX_RUNTIMES:
        network = folder / f"{sum(1 for _ in folder.iterdir())}.onnx"
        row.precision = bare_network(Path(row.path), network)
        row.taken_out = str(network)
        file = Path(row.path, ONNX_FILE) if Path(row.path).is_dir() else Path(row.path)
        row.deployed = str(file) if row.runtime == "onnxruntime" and takes_photos(file) else None


def _one_round(row: Row, worker: WorkerProcess, launch: int, seconds: float) -> None:
    if row.reason is None:
        with reason_for(row):
            answer = worker.ask("measure", runs=max(1, round(1000 * seconds / worker.run_ms)))
            row.rounds.append(answer["ms"])
            row.device_rounds.append(answer["device_ms"] or [])
            row.taken.append(answer["taken"])
            row.joules.append(None if answer["joules"] is None else answer["joules"] / len(answer["ms"]))
            row.launches.append(launch)
            row.peak_bytes = max(row.peak_bytes or 0, answer["peak_bytes"])
            if answer["device_peak_bytes"] is not None:
                row.device_peak_bytes = max(row.device_peak_bytes or 0, answer["device_peak_bytes"])


def _answer(row: Row, worker: WorkerProcess, photos: Mapping[str, Path]) -> None:
    """Take the way from each photo to its answer, by the exported file of a row that has one."""
    if row.reason is None and row.deployed is not None and photos:
        with reason_for(row):
            found = worker.ask("answer", path=row.deployed, photos={name: str(file) for name, file in photos.items()})
            for name, parts in found["photos"].items():
                row.answers.setdefault(name, []).append(parts)
            row.answer_bytes = max(row.answer_bytes or 0, found["peak_bytes"])
