"""How fast candidates are, in each runtime that may run them; on a device that does nothing else meanwhile."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from compress.benchmark.harness import bench
from compress.benchmark.machine import describe_machine
from zoo.errors import UsageError
from zoo.progress import Progress

RUNTIMES = ("onnxruntime", "openvino")  # that a model may be deployed in
QUICK: dict[str, Any] = {"rounds": 6, "launches": 3, "seconds_per_round": 0.1}  # where it decides what is tried next


def runtimes_here() -> tuple[str, ...]:
    """Those that are installed, onnxruntime first."""
    return tuple(name for name in RUNTIMES if importlib.util.find_spec(name) is not None)


def check_runtimes(names: Sequence[str]) -> None:
    """
    Raises:
        UsageError: one of them is not installed.
    """
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UsageError(f"{missing[0]} is not installed: pip install 'slimzoo[{missing[0]}]', or leave --runtime out")


@functools.cache
def machine() -> dict[str, Any]:
    """What a latency depends on; ready for JSON."""
    found = {key: value for key, value in describe_machine().items() if key != "load_average"}
    return found | {"runtimes": {name: importlib.metadata.version(name) for name in runtimes_here()}}


class Device:
    """One measurement at a time on this machine; other workers of the search pause at their next step of progress.

    Args:
        folder: which the workers share.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / f"device-{platform.node()}.lock")

    @contextmanager
    def alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            yield

    def paused(self, progress: Progress | None) -> Progress:
        """The same, but it waits as long as another process measures."""

        def told(title: str, done: int, total: int, note: str = "") -> None:
            with self._lock:
                pass
            if progress is not None:
                progress(title, done, total, note)

        return told


def timed(
    models: Sequence[str | Path], runtimes: Sequence[str], threads: int | None, **how: Any
) -> list[dict[str, Any]]:
    """Of each model {"latencies": {runtime: ms}, "memories": {runtime: bytes}, "disturbed"}, without what could not be
    measured.

    Args:
        how: options of `bench`.
    """
    rows = bench(models, runtimes=runtimes, threads=threads, photos=[], **{**QUICK, **how}).rows
    return [
        {
            "latencies": {row["runtime"]: row["median_ms"] for row in own if row["median_ms"] is not None},
            "memories": memories_of(own),
            "disturbed": any(bool(row.get("disturbed")) for row in own),
        }
        for own in (rows[at : at + len(runtimes)] for at in range(0, len(rows), len(runtimes)))
    ]


def memories_of(rows: Sequence[Any]) -> dict[str, float]:
    """Bytes that a process takes at most in each runtime, as far as that is known."""
    return {row["runtime"]: 1e6 * row["peak_mb"] for row in rows if row["peak_mb"] is not None}


def fitting(
    latencies: Mapping[str, float], memories: Mapping[str, float], most_bytes: float | None
) -> tuple[dict[str, float], float | None]:
    """The latencies of the runtimes that take no more memory, of all where each takes more; and what the fastest of
    these takes, where that is known."""
    small = {r: ms for r, ms in latencies.items() if most_bytes is None or memories.get(r, math.inf) <= most_bytes}
    found = small or dict(latencies)
    fastest = min(found, key=lambda name: found[name], default="")
    return found, memories.get(fastest)
