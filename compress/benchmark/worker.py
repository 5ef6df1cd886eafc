"""A process that holds one runtime with one model and measures it when told to.

`python -m compress.benchmark.worker` reads JSON lines on stdin, answers each with one on stdout, and ends when
stdin does:

    {"do": "open", "runtime", "path", "threads", "batch", "precision", "inputs"} ->
        {"device", "precision", "input_shape", "cpus", "load_ms", "first_ms"}; loading includes importing the runtime
    {"do": "warm_up", "seconds"} -> {"run_ms"}              one run by the end of it
    {"do": "measure", "runs"}    -> {"ms", "device_ms", "taken", "joules", "peak_bytes", "device_peak_bytes"}   each
        run's duration, and that of its work on the device, or null; the share of the processors' time that other work
        took meanwhile; their energy, or null; the process's peak memory so far, and its device's, or null
    {"do": "answer", "path", "photos"} -> {"photos", "peak_bytes"}  of each photo what `Answering.measure` gives
    anything that fails          -> {"error"}               one line

Between requests it blocks on stdin, and it answers only when its threads have gone quiet: onnxruntime's spin on for
40 ms after a run (as measured; OpenMP's for 10 ms), and would take the cores from the next process. Turning spinning
off instead would change what is measured: on two cores it made a run of 2 ms take 4.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from compress.benchmark.answer import Answering
from compress.benchmark.disturbance import look, taken
from compress.benchmark.energy import energy_uj, joules
from compress.benchmark.fitting_batch import bound_memory, is_out_of_memory, largest_batch
from compress.benchmark.machine import cpus_for
from compress.benchmark.runtimes import RUNTIMES, OnDevice, Runtime
from zoo.errors import SlimzooError, UsageError, first_line

BATCHES = 4  # different inputs, in turn: a runtime that is given one buffer again and again could keep it in its cache
LARGE = 1 << 28  # bytes
NOISE = 256  # images of it, which larger batches repeat
UNMEASURED = 3  # runs before each measurement: what ran meanwhile has emptied the caches
STEADY = 0.05  # warm-up ends when the median of 5 runs is within this share of that of the 5 before
WARM_UP_AT_MOST = 20.0  # times the seconds asked for
QUIET_STEP_S, QUIET_SHARE, QUIET_WITHIN_S = 0.02, 0.1, 2.0


class Worker:
    runtime: Runtime
    threads: int
    cpus: list[int] | None
    batches: Iterator[NDArray[np.float32]]

    def open(
        self,
        *,
        runtime: str,
        path: str,
        threads: int,
        batch: int,
        precision: str | None = None,
        inputs: str | None = None,
    ) -> dict[str, Any]:
        self.threads, self.cpus = threads, _pin(threads)
        started = time.perf_counter_ns()
        self.runtime = RUNTIMES[runtime](path, threads=threads, precision=precision)
        load_ms = (time.perf_counter_ns() - started) / 1e6
        if self.runtime.device == "cpu":
            bound_memory()
        try:
            self._take(batch, inputs)
            first_ms = self._run()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise SlimzooError(self._too_large(batch, inputs)) from error
        return {
            "device": self.runtime.device,
            "precision": self.runtime.precision,
            "input_shape": self.runtime.input_shape,
            "cpus": self.cpus,
            "load_ms": load_ms,
            "first_ms": first_ms,
        }

    def _take(self, batch: int, inputs: str | None) -> None:
        self.batches = cycle(_batches(self.runtime.input_shape, batch, inputs))

    def _too_large(self, batch: int, inputs: str | None) -> str:
        def runs(smaller: int) -> None:
            self._take(smaller, inputs)
            self._run()

        found = largest_batch(runs, batch)
        where = "this machine" if self.runtime.device == "cpu" else self.runtime.device
        return f"a batch of {batch} does not fit into the memory of {where}" + (f"; {found} does" if found else "")

    def warm_up(self, *, seconds: float) -> dict[str, Any]:
        began, ms = time.perf_counter(), [self._run() for _ in range(10)]
        while (spent := time.perf_counter() - began) < WARM_UP_AT_MOST * seconds:
            last, before = statistics.median(ms[-5:]), statistics.median(ms[-10:-5])
            if spent >= seconds and abs(last / before - 1) <= STEADY:
                break
            ms.append(self._run())
        return {"run_ms": statistics.median(ms[-5:])}

    def measure(self, *, runs: int) -> dict[str, Any]:
        for _ in range(UNMEASURED):
            self._run()
        before, energy = look(self.cpus), energy_uj()
        tells = self.runtime if isinstance(self.runtime, OnDevice) else None
        ms, device_ms = list[float](), list[float | None]()
        for _ in range(runs):
            ms.append(self._run())
            device_ms.append(None if tells is None else tells.device_ms)
        used, share = joules(energy, energy_uj()), taken(before, look(self.cpus), self.threads)
        return {
            "ms": ms,
            "device_ms": None if None in device_ms else device_ms,
            "taken": round(share, 4),
            "joules": used,
            "peak_bytes": peak_bytes(),
            "device_peak_bytes": None if tells is None else tells.device_peak_bytes(),
        }

    def answer(self, *, path: str, photos: dict[str, str]) -> dict[str, Any]:
        """The last request of a process: two sessions would spin on each other's processors."""
        del self.runtime
        answering = Answering(path, self.threads)
        found = {name: answering.measure(photo, self.threads, self.cpus) for name, photo in photos.items()}
        return {"photos": found, "peak_bytes": peak_bytes()}

    def _run(self) -> float:
        """The milliseconds that one run took."""
        batch = next(self.batches)
        started = time.perf_counter_ns()
        self.runtime.run(batch)
        return (time.perf_counter_ns() - started) / 1e6


def peak_bytes() -> int:
    """The most memory that this program has held.

    Not ru_maxrss where /proc knows better: Linux carries that of the parent over an exec, and a parent that has
    imported torch would pass its gigabyte off as onnxruntime's.
    """
    with contextlib.suppress(OSError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    try:
        import resource
    except ImportError:
        return int(memory.rss)  # what it holds now is the most that can be told
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kibibytes


def _pin(threads: int) -> list[int] | None:
    """Keep this process, and the threads it will start, on as many processors; gives them, or None where it cannot."""
    cpus = cpus_for(threads)
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)
        else:
            import psutil

            psutil.Process().cpu_affinity(cpus)  # Windows; macOS has no such method
    except (OSError, AttributeError):
        return None
    return cpus


def _batches(shape: tuple[int, int, int], batch: int, inputs: str | None) -> list[NDArray[np.float32]]:
    """Batches, of the prepared images of a .npy file (N, C, H, W), or of normal noise of a fixed seed.

    `BATCHES` of them, or one that is larger than any cache.
    """
    batches = BATCHES if 4 * batch * math.prod(shape) <= LARGE else 1
    if inputs is None:
        rng = np.random.default_rng(0)
        images = rng.standard_normal((min(batches * batch, NOISE), *shape), dtype=np.float32)
    else:
        images = np.load(inputs, allow_pickle=False)
    if images.shape[1:] != shape or len(images) == 0:
        raise UsageError(f"{inputs} holds images of shape {images.shape}: wanted (N, {', '.join(map(str, shape))})")
    order = np.arange(batches * batch) % len(images)
    return list(np.ascontiguousarray(images[order], dtype=np.float32).reshape(batches, batch, *shape))


def _wait_until_quiet() -> None:
    """Wait until the threads of this process have stopped spinning: under a tenth of one processor."""
    deadline = time.monotonic() + QUIET_WITHIN_S
    while time.monotonic() < deadline:
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(QUIET_STEP_S)
        if time.process_time() - cpu < QUIET_SHARE * (time.perf_counter() - wall):
            return


def _answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    do: dict[str, Callable[..., dict[str, Any]]]
    do = {"open": worker.open, "warm_up": worker.warm_up, "measure": worker.measure, "answer": worker.answer}
    try:
        return do[request.pop("do")](**request)
    except Exception as error:  # whatever a runtime raises is this row's reason
        line = first_line(error)
        return {"error": line if isinstance(error, SlimzooError) else f"{type(error).__name__}: {line}"}


def serve(requests: IO[str], answers: IO[str]) -> None:
    worker = Worker()
    for line in requests:
        answer = _answer(worker, json.loads(line))
        _wait_until_quiet()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
