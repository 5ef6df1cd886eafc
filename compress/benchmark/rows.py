"""The rows of a benchmark: which runtimes a model is measured in, and what is known of each row by now."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compress.benchmark.machine import gpu_names
from compress.benchmark.runtimes import OF_CUDA, ONNX_FILE, TORCH_CUDA
from compress.report.statistics import Ratio, TooBusy, speed_up
from zoo.errors import UsageError
from zoo.files.elsewhere import is_timm_directory, weights_in
from zoo.files.onnx_session import ONNX_RUNTIMES
from zoo.pretrained.upstream import is_upstream


@dataclass
class Row:
    """A model in a runtime.

    Attributes:
        file: what is run; None where the runtime makes it.
        precision: None is the runtime's own.
        reason: why it was not measured.
        taken_out: the network alone, where it stands in a file of its own.
        deployed: the file that it was taken out of, where that takes photos.
        opened: what its first process said when it had opened the model.
        rounds: of each round, the milliseconds of each run.
        device_rounds: and those of the device alone, where the runtime tells them.
        taken: of each round, the share of the processors' time that other work took.
        joules: of each round, the energy of a run; None where the machine does not tell it.
        launches: of each round, in which of the processes it was measured.
        answers: of each photo, what each process took from it to its answer, see answer.py.
        peak_bytes: the most that a process has held, of the network alone; `answer_bytes` of the whole way;
            `device_peak_bytes` on a device of its own.
    """

    model: str
    path: str
    runtime: str
    file: Path | None = None
    precision: str | None = None
    reason: str | None = None
    taken_out: str | None = None
    deployed: str | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    rounds: list[list[float]] = field(default_factory=list)
    device_rounds: list[list[float]] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)
    launches: list[int] = field(default_factory=list)
    answers: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    peak_bytes: int | None = None
    answer_bytes: int | None = None
    device_peak_bytes: int | None = None

    @property
    def rounds_ms(self) -> list[float]:
        return [statistics.median(ms) for ms in self.rounds]

    def twin(self) -> Row:
        """The same once more, not measured yet."""
        return replace(
            self,
            reason=None,
            deployed=None,
            opened={},
            rounds=[],
            device_rounds=[],
            taken=[],
            joules=[],
            launches=[],
            answers={},
            peak_bytes=None,
            device_peak_bytes=None,
        )


def compared(base: Row, row: Row, asked: int) -> Ratio | TooBusy | None:
    """The speed-up of a row over another one; see `speed_up`."""
    old, new = ({"rounds_ms": one.rounds_ms, "taken": one.taken, "launches": one.launches} for one in (base, row))
    return speed_up(old, new, asked)


def names_of(models: Sequence[str | Path]) -> list[str]:
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


def rows_of(model: str | Path, name: str, runtimes: Sequence[str] | None) -> list[Row]:
    """The rows of one model; of those that were not asked for by name, only what the model is meant to run in."""
    path = Path(model)
    upstream = is_upstream(model)
    if not upstream and not path.exists():
        return [Row(name, str(model), r, reason=f"{model} does not exist") for r in runtimes or ["onnxruntime"]]
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
    here = ["torch-cuda", "torch-cuda-graph"] if gpu_names() else ["torch-cuda"]
    meant = ["torch", *here] if upstream else ["onnxruntime"]
    if path.is_dir() and files["torch"][1] is None:
        meant = ["onnxruntime", "torch", *here]
    rows = []
    for runtime in runtimes or meant:
        file, reason = files["onnxruntime" if runtime in ONNX_RUNTIMES else "torch"]
        cuda = runtime in TORCH_CUDA
        if cuda and reason is None and not gpu_names():
            reason = "no CUDA device"
        for precision in OF_CUDA if cuda and reason is None else (None,):
            rows.append(Row(name, str(model), runtime, file, precision, reason))
    return rows
