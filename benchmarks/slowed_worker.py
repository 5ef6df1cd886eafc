"""A benchmark's worker in which a network whose producer is "slowed by SHARE" takes that share longer, by waiting."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from compress.benchmark import runtimes, worker

MARK = "slowed by "


class Slowed:
    def __init__(self, *args: Any, **given: Any) -> None:
        self._runtime: Any = runtimes.open_onnxruntime(*args, **given)
        producer = self._runtime._session.get_modelmeta().producer_name
        self._share = float(producer.removeprefix(MARK)) if producer.startswith(MARK) else 0.0
        self.name, self.device, self.precision = self._runtime.name, self._runtime.device, self._runtime.precision
        self.input_shape = self._runtime.input_shape

    def run(self, batch: Any) -> Any:
        began = time.perf_counter()
        logits = self._runtime.run(batch)
        end = began + (1 + self._share) * (time.perf_counter() - began)
        while self._share and time.perf_counter() < end:
            pass
        return logits


if __name__ == "__main__":
    runtimes.RUNTIMES["onnxruntime"] = partial(Slowed, name="onnxruntime")
    worker.main()
