"""The caller's end of compress/benchmark/worker.py: one process that holds one runtime with one model."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from zoo.errors import SlimzooError

ANSWER_WITHIN_S = 600.0  # a worker that is silent for longer hangs
ROOT = Path(__file__).parents[2]


class NotMeasuredError(SlimzooError):
    """Why a row has no numbers."""


class WorkerProcess:
    """A worker. Leaving the `with` block ends it at once; should this process be killed, its stdin ends and so does it.

    Attributes:
        run_ms: how long one run takes, as the warm-up saw it.
    """

    module = "compress.benchmark.worker"  # what the process runs
    run_ms = 0.0

    def __init__(self, threads: int) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers in order
            encoding="utf-8",
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Queue its answers, "" at their end: there is no other wait with a limit that every system has for pipes."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put("")

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._stderr):
            assert stream is not None
            with contextlib.suppress(OSError):  # a pipe that nobody reads any more
                stream.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request, one answer; see `send` and `answer`."""
        self.send(do, **request)
        return self.answer(do)

    def send(self, do: str, **request: Any) -> None:
        """Request without waiting for the answer.

        Raises:
            NotMeasuredError: the worker is dead.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
        except OSError:  # it reads no more: BrokenPipeError, on Windows any other
            raise NotMeasuredError(self._epitaph()) from None

    def answer(self, do: str) -> dict[str, Any]:
        """Wait for the answer to a request.

        Raises:
            NotMeasuredError: the worker says why not, or is dead, or hangs.
        """
        try:
            line = self._answers.get(timeout=ANSWER_WITHIN_S)
        except queue.Empty:
            raise NotMeasuredError(f"no answer to {do!r} within {ANSWER_WITHIN_S:.0f} s") from None
        if not line:
            raise NotMeasuredError(self._epitaph())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotMeasuredError(answer["error"])
        return answer

    def _epitaph(self) -> str:
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._stderr.seek(0)
        last = self._stderr.read().strip().splitlines()[-1:]
        return ": ".join(["its process died", how, *last])
