"""The next steps' inputs, made while the present step runs; how long the step had to wait for them is measured."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterate over (key, make(key)) for each key in order; a thread makes up to `depth` of them ahead.

    An exception in `make` is raised by the iteration that would have given its result. Leaving the `with` block ends
    the thread, whatever happens inside. With depth=0 there is no thread, and all the time that `make` takes is waiting.

    Attributes:
        waited_s: seconds that the caller has waited so far.
    """

    def __init__(self, make: Callable[[int], T], keys: Sequence[int], *, depth: int) -> None:
        self.waited_s = 0.0
        self._make, self._keys = make, keys
        self._room = threading.Semaphore(depth)  # how many may still be made ahead
        self._made: queue.SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = queue.SimpleQueue()
        self._stop = False
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True) if depth else None

    def __enter__(self) -> Prefetch[T]:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop = True
        self._room.release()
        if self._thread is not None:
            self._thread.join()

    def __iter__(self) -> Iterator[tuple[int, T]]:
        for key in self._keys:
            began = time.perf_counter()
            made = self._make(key) if self._thread is None else self._take()
            self.waited_s += time.perf_counter() - began
            yield key, made

    def _take(self) -> T:
        made, error = self._made.get()
        self._room.release()
        if error is not None:
            raise error
        return made  # type: ignore[return-value]

    def _work(self) -> None:
        for key in self._keys:
            self._room.acquire()
            if self._stop:
                return
            try:
                self._made.put((self._make(key), None))
            except BaseException as error:
                self._made.put((None, error))
                return
