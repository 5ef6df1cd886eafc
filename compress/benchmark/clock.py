"""How long a network keeps its device busy, apart from the copies to and from it."""

from __future__ import annotations

import time
from typing import Any, Protocol


class Clock(Protocol):
    """Entered before a network's work is given to its device, and left when it is."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> None: ...

    def ms(self) -> float:
        """Of the work in between; waits for its end."""


class HostClock:
    """Of work that is done when the call returns."""

    def __enter__(self) -> HostClock:
        self._began = time.perf_counter_ns()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = time.perf_counter_ns()

    def ms(self) -> float:
        return (self._ended - self._began) / 1e6


class CudaClock:
    """By two events in the stream of the work: what the GPU did, and not when it was told to.

    Args:
        cuda: torch.cuda.
    """

    def __init__(self, cuda: Any) -> None:
        self._began, self._ended = (cuda.Event(enable_timing=True) for _ in range(2))

    def __enter__(self) -> CudaClock:
        self._began.record()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.record()

    def ms(self) -> float:
        self._ended.synchronize()
        return float(self._began.elapsed_time(self._ended))
