"""The caller's end of compress/deploy/benchmark_worker.py: one process that holds one runtime with one model."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
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

    run_ms = 0.0

    def __init__(self, threads: int) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "compress.deploy.benchmark_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers in order
            text=True,
        )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            NotMeasuredError: the worker says why not, or is dead, or hangs.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NotMeasuredError(self._epitaph()) from None
        if not select.select([self._process.stdout], [], [], ANSWER_WITHIN_S)[0]:
            raise NotMeasuredError(f"no answer to {do!r} within {ANSWER_WITHIN_S:.0f} s")
        if not (line := self._process.stdout.readline()):
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
