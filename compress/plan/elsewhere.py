"""How fast candidates are on a machine that is not this one, by what was measured there of a few models.

A file that deploy/bench.py wrote there names each model by the hash of its ONNX file; the same files are timed here, in
onnxruntime as there. For each number format milliseconds there are taken to be a power of those here, log there = a + b
log here: the line of least squares through the models that were measured in that format; b is 1 where all take about as
long here. A format of which nothing was measured there takes the other's line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.report.machines import read_benchmark
from zoo.disk import sha256
from zoo.errors import UsageError
from zoo.files.model_directory import ONNX

INT8 = "int8"
ALIKE = 1.2  # times as long, up to which a line through models would follow how unsure they are
SLOPES = (0.5, 2.0)  # of lines; others are noise


@dataclass(frozen=True)
class Target:
    """
    Attributes:
        machine: its processor.
        models: that were measured there.
        lines: "fp32" and "int8" -> (a, b).
        missing: the format of which none was.
    """

    machine: str
    models: int
    lines: Mapping[str, tuple[float, float]]
    missing: str | None

    def there(self, here_ms: float, *, int8: bool) -> float:
        """Milliseconds there."""
        a, b = self.lines[INT8 if int8 else "fp32"]
        return math.exp(a + b * math.log(here_ms))

    def said(self) -> str:
        found = f"latencies are those expected on {self.machine}, by {self.models} models that were measured there"
        return found + (f", none of them in {self.missing}" if self.missing else "")

    def record(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Target:
        return cls(**{**record, "lines": {name: tuple(line) for name, line in record["lines"].items()}})


@dataclass(frozen=True)
class Measured:
    """A model on the other machine.

    Attributes:
        file: the same here.
        there_ms: its median there.
    """

    file: Path
    there_ms: float


def measured_there(given: Sequence[str | Path], places: Iterable[Path]) -> tuple[str, list[Measured]]:
    """The other machine's processor, and the models of these files that are here too.

    Args:
        places: folders of models.

    Raises:
        UsageError: no such file, or another kind of file; several machines; none of its models is here.
    """
    read = [read_benchmark(file) for file in given]
    machines = sorted({str(result["machine"].get("processor")) for result in read})
    if len(machines) > 1:
        raise UsageError(f"--latency-from names files of {len(machines)} machines, {', '.join(machines)}: wanted one")
    here = {sha256(place / ONNX): place / ONNX for place in places if (place / ONNX).is_file()}
    rows = [row for result in read for row in result["rows"] if row["runtime"] == "onnxruntime" and row["median_ms"]]
    rows = [row for row in rows if row.get("batch", 1) == 1 and row.get("sha256") in here]
    rows.sort(key=lambda row: not row.get("disturbed"))  # of one model what nothing disturbed counts
    found = {row["sha256"]: Measured(here[row["sha256"]], row["median_ms"]) for row in rows}
    if not found:
        raise UsageError(
            f"{', '.join(map(str, given))}: none of the models that were measured there is here; compress once without "
            "--latency-from, copy OUT/variants/*/deploy to that machine, and run bench.py in each"
        )
    return machines[0], list(found.values())


def target_of(machine: str, points: Sequence[tuple[str, float, float]]) -> Target:
    """
    Args:
        points: of each model its precision, and its milliseconds here and there.
    """
    lines = {}
    for name in ("fp32", INT8):
        own = np.log([(here, there) for precision, here, there in points if (precision == INT8) == (name == INT8)])
        if len(own):
            differ = float(np.ptp(own[:, 0])) > math.log(ALIKE)
            b = float(np.clip(np.polyfit(own[:, 0], own[:, 1], 1)[0], *SLOPES)) if differ else 1.0
            lines[name] = (float((own[:, 1] - b * own[:, 0]).mean()), b)
    missing = next((name for name in ("fp32", INT8) if name not in lines), None)
    if missing is not None:
        lines[missing] = next(iter(lines.values()))
    return Target(machine, len(points), lines, missing)
