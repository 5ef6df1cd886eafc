"""slimzoo bench: how fast models run on this machine, and how sure that is.

Each (model, runtime) runs in a process of its own, only one of them awake at a time. Rounds are interleaved and
reversed every second time (A B, B A, ...), so that what drifts meets all alike. A second copy of the reference runs
along: what is measured between the two copies is the machine's noise, and a difference inside it is called a tie. No
sample is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.benchmark.machine import default_threads, describe_machine, gpu_names
from compress.benchmark.process import WorkerProcess
from compress.benchmark.runtimes import OF_CUDA, ONNX_FILE, RUNTIMES, bare_network
from compress.benchmark.table import Benchmark
from compress.benchmark.written import written
from compress.report.statistics import SAMPLES_FOR_P90, SAMPLES_FOR_P99, Ratio, ratio_interval
from transfer.result import StepResult
from zoo import lineage
from zoo.disk import check_file
from zoo.errors import SlimzooError, UsageError, did_you_mean, first_line
from zoo.files.elsewhere import is_timm_directory, weights_in
from zoo.files.manifest import verify_manifest
from zoo.files.model_directory import LoadedModel, is_model_directory
from zoo.files.onnx_session import ONNX_RUNTIMES
from zoo.pretrained.upstream import is_upstream
from zoo.progress import Progress


@dataclass
class _Row:
    model: str
    path: str
    runtime: str
    file: Path | None = None  # what this row runs
    precision: str | None = None  # None: the runtime's own
    reason: str | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    rounds: list[list[float]] = field(default_factory=list)  # ms of each run
    peak_bytes: int | None = None

    @property
    def rounds_ms(self) -> list[float]:
        return [statistics.median(ms) for ms in self.rounds]


def bench(
    models: Sequence[str | Path | LoadedModel | StepResult],
    *,
    runtimes: Sequence[str] | None = None,
    threads: int | None = None,
    batch: int = 1,
    rounds: int = 15,
    seconds_per_round: float = 0.2,
    inputs: str | Path | None = None,
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
        rounds: of each row; an interval needs about ten.
        seconds_per_round: how long a row runs in each round, about.
        inputs: a .npy file of prepared images (N, C, H, W); None is normal noise.
        save: where to write the result as JSON.
        progress: see `Progress`.

    Returns:
        A mapping, ready for JSON, whose text is a table: `rows`, `reference`, `noise`, `machine`, `versions`,
        `settings`. A row that could not be measured
        has null for numbers and a `reason`. `ratio` is the speed-up over the reference, `ratio_ci` its 95% interval;
        `peak_mb` is the host memory of the row's process, 1 MB = 1e6 bytes; `p90_ms` and `p99_ms` are null where there
        are too few samples to bound them.

    Raises:
        SlimzooError: a model directory is not what its manifest says.
    """
    save = None if save is None else Path(save)
    inputs = None if inputs is None else Path(inputs)
    if isinstance(models, str | Path | LoadedModel | StepResult):
        models = [models]
    with tempfile.TemporaryDirectory() as folder:
        places = [written(model, Path(folder, str(number))) for number, model in enumerate(models)]
        return _bench(places, runtimes, threads, batch, rounds, seconds_per_round, inputs, save, progress)


def _bench(
    models: Sequence[str | Path],
    runtimes: Sequence[str] | None,
    threads: int | None,
    batch: int,
    rounds: int,
    seconds_per_round: float,
    inputs: Path | None,
    save: Path | None,
    progress: Progress | None,
) -> Benchmark:
    _check(models, runtimes, batch, rounds, seconds_per_round, save)
    threads = threads or default_threads()
    machine = describe_machine()  # before the measurement, for the load average
    rows = [row for model, name in zip(models, _names(models), strict=True) for row in _rows(model, name, runtimes)]
    settings = {
        "batch": batch,
        "threads": threads,
        "rounds": rounds,
        "seconds_per_round": seconds_per_round,
        "inputs": "normal noise, seed 0" if inputs is None else str(inputs),
    }
    reference, twin = _measure_(rows, threads, batch, rounds, seconds_per_round, inputs, progress)
    result = _result(rows, reference, twin, settings)
    result |= {"machine": machine, "versions": lineage.versions(), "settings": settings}
    if save is not None:
        partial = save.with_name(save.name + ".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, save)
    return Benchmark(result)


def _measure_(
    rows: Sequence[_Row],
    threads: int,
    batch: int,
    rounds: int,
    seconds_per_round: float,
    inputs: Path | None,
    progress: Progress | None,
) -> tuple[_Row | None, _Row | None]:
    """Fill the rows with rounds; the reference among them, and its twin, which says how noisy the machine is."""
    say = progress or (lambda what, done, total, note: None)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers: list[tuple[_Row, WorkerProcess]] = []

        def start(row: _Row) -> None:
            worker = stack.enter_context(WorkerProcess(threads))
            with _reason_for(row):
                _open(worker, row, scratch, threads=threads, batch=batch, inputs=inputs)
                worker.run_ms = worker.ask("warm_up", seconds=seconds_per_round)["run_ms"]
                workers.append((row, worker))

        for done, row in enumerate(rows):
            if row.reason is None:
                say("opening", done, len(rows), f"{row.model} in {row.runtime}")
                start(row)
        reference = _reference(rows)
        twin = None
        if reference is not None:
            twin = _Row(reference.model, reference.path, reference.runtime, reference.file, reference.precision)
            start(twin)
        for number in range(rounds if workers else 0):
            say("measuring", number, rounds, "rounds")
            _round(reversed(workers) if number % 2 else workers, seconds_per_round)
    say("measuring", rounds, rounds, "rounds")
    return reference, twin


def _check(
    models: Sequence[str | Path],
    runtimes: Sequence[str] | None,
    batch: int,
    rounds: int,
    seconds_per_round: float,
    save: Path | None,
) -> None:
    known = "known: " + ", ".join(RUNTIMES)
    for name in runtimes or ():
        if name not in RUNTIMES:
            raise UsageError(f"unknown runtime {name!r}; {did_you_mean(name, RUNTIMES, known)}")
    if not models or batch < 1 or rounds < 2 or seconds_per_round <= 0:
        raise UsageError("wanted at least one model, batch >= 1, rounds >= 2 and seconds_per_round > 0")
    if save is not None:
        check_file(save, "--save")
    for model in models:
        if not is_upstream(model) and is_model_directory(Path(model)):
            verify_manifest(Path(model))


# --- which rows there are ---------------------------------------------------------------------------------------------


def _names(models: Sequence[str | Path]) -> list[str]:
    """The last component of each path, with as many more in front as it takes to tell them apart."""
    names = []
    parts = [(str(m),) if is_upstream(m) else Path(os.path.abspath(m)).parts for m in models]
    if repeated := [path for path, count in Counter(parts).items() if count > 1]:
        raise UsageError(f"{repeated[0][-1]} is given twice; the noise of the machine is measured anyway")
    for mine in parts:
        length = 1
        while sum(other[-length:] == mine[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(mine[-length:]))
    return names


def _rows(model: str | Path, name: str, runtimes: Sequence[str] | None) -> list[_Row]:
    """The rows of one model; of those that were not asked for by name, only what the model is meant to run in."""
    path = Path(model)
    upstream = is_upstream(model)
    if not upstream and not path.exists():
        return [_Row(name, str(model), r, reason=f"{model} does not exist") for r in runtimes or ["onnxruntime"]]
    files: dict[str, tuple[Path | None, str | None]] = {"torch": (None, None), "onnxruntime": (None, None)}
    if upstream:
        files["onnxruntime"] = (None, f"{model} has no ONNX file")
    elif path.is_dir():
        foreign = is_timm_directory(path)
        onnx, tensors = path / ONNX_FILE, weights_in(path) if foreign else path / "model.safetensors"
        files["onnxruntime"] = (onnx, None if onnx.is_file() else f"no {ONNX_FILE}: run `slimzoo export {model}`")
        files["torch"] = (
            tensors,
            None if tensors.is_file() else f"no model.safetensors in {model}: torch cannot run it",
        )
    else:
        files["onnxruntime"] = (path, None)
        files["torch"] = (None, f"torch cannot run the ONNX file {model}")
    meant = ["torch", "torch-cuda"] if upstream else ["onnxruntime"]
    if path.is_dir() and files["torch"][1] is None:
        meant = ["onnxruntime", "torch", "torch-cuda"]
    rows = []
    for runtime in runtimes or meant:
        file, reason = files["onnxruntime" if runtime in ONNX_RUNTIMES else "torch"]
        cuda = runtime == "torch-cuda"
        if cuda and reason is None and not gpu_names():
            reason = "no CUDA device"
        for precision in OF_CUDA if cuda and reason is None else (None,):
            rows.append(_Row(name, str(model), runtime, file, precision, reason))
    return rows


def _reference(rows: Sequence[_Row]) -> _Row | None:
    ready = [row for row in rows if row.opened]
    firsts = [row for row in ready if row.model == rows[0].model and row.runtime == "onnxruntime"]
    return next(iter(firsts + ready), None)


# --- measuring them ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reason_for(row: _Row) -> Any:
    """What goes wrong in the block is why `row` was not measured."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, SlimzooError)
        row.reason = first_line(error) if known else f"{type(error).__name__}: {error}"
        row.opened, row.rounds = {}, []


def _open(worker: WorkerProcess, row: _Row, scratch: Path, *, threads: int, batch: int, inputs: Path | None) -> None:
    path, precision = row.path, row.precision
    if row.runtime in ONNX_RUNTIMES:  # the worker gets the network alone, and need not import onnx to take it out
        network = scratch / f"{sum(1 for _ in scratch.iterdir())}.onnx"
        precision = bare_network(Path(row.path), network)
        path = str(network)
    row.opened = worker.ask(
        "open",
        runtime=row.runtime,
        path=path,
        threads=threads,
        batch=batch,
        precision=precision,
        inputs=None if inputs is None else str(inputs),
    )


def _round(workers: Iterable[tuple[_Row, WorkerProcess]], seconds: float) -> None:
    for row, worker in workers:
        if row.reason is None:
            with _reason_for(row):
                answer = worker.ask("measure", runs=max(1, round(1000 * seconds / worker.run_ms)))
                row.rounds.append(answer["ms"])
                row.peak_bytes = answer["peak_bytes"]


# --- what came out ----------------------------------------------------------------------------------------------------


def _result(
    rows: Sequence[_Row], reference: _Row | None, twin: _Row | None, settings: dict[str, Any]
) -> dict[str, Any]:
    base = reference.rounds_ms if reference is not None else []
    whole = twin is not None and len(twin.rounds) == len(base) > 0
    noise = ratio_interval(base, twin.rounds_ms) if twin is not None and whole else None
    return {
        "rows": [_record(row, base, noise, settings, is_reference=row is reference) for row in rows],
        "reference": {"model": reference.model, "runtime": reference.runtime} if reference and base else None,
        "noise": noise and {"ratio": noise.median, "ratio_ci": [noise.lo, noise.hi], "floor_pct": noise.floor_pct},
    }


def _record(
    row: _Row, base: list[float], noise: Ratio | None, settings: dict[str, Any], *, is_reference: bool
) -> dict[str, Any]:
    """One row of the result; see `bench`."""
    ms = np.array([run for one in row.rounds for run in one])
    n, median = ms.size, float(np.median(ms)) if ms.size else None
    ratio = ratio_interval(base, row.rounds_ms) if base and len(row.rounds) == len(base) else None
    verdict = ratio.verdict(noise.floor_pct) if ratio and noise else None
    return {
        "model": row.model,
        "runtime": row.runtime,
        "device": row.opened.get("device", "cuda" if row.runtime == "torch-cuda" else "cpu"),
        "precision": row.opened.get("precision", row.precision),
        "batch": settings["batch"],
        "threads": settings["threads"],
        "median_ms": median,
        "p90_ms": float(np.quantile(ms, 0.9)) if n >= SAMPLES_FOR_P90 else None,
        "p99_ms": float(np.quantile(ms, 0.99)) if n >= SAMPLES_FOR_P99 else None,
        "images_per_s": 1000 * settings["batch"] / median if median else None,
        "peak_mb": row.peak_bytes / 1e6 if row.peak_bytes and n else None,
        "size_bytes": row.file.stat().st_size if row.file and row.file.is_file() else None,
        "reason": None if row.reason is None else f"not measured: {row.reason}",
        "samples": n,
        "load_ms": row.opened.get("load_ms"),
        "first_ms": row.opened.get("first_ms"),
        "cpus": row.opened.get("cpus"),
        "rounds_ms": row.rounds_ms,
        "ratio": ratio and ratio.median,
        "ratio_ci": ratio and [ratio.lo, ratio.hi],
        "verdict": "reference" if is_reference and n else verdict,
    }
