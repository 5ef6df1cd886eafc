"""What other machines measured: files of deploy/bench.py and of `slimzoo bench --save`, joined to the models here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.report.figures import MISSING, Cell, megabytes, milliseconds, quoted
from compress.report.parts import Table
from compress.report.variants import BENCH, BENCH_ROW, Variant
from zoo.disk import read_json, sha256
from zoo.errors import UsageError
from zoo.files.model_directory import ONNX

WANTED = "wanted what deploy/bench.py or `slimzoo bench --save` writes"


@dataclass(frozen=True)
class Elsewhere:
    """A file of another machine's; its rows carry the names of the models here."""

    machine: dict[str, Any]
    rows: list[dict[str, Any]]


def read_benchmark(file: str | Path) -> dict[str, Any]:
    """
    Raises:
        UsageError: no such file, or another kind of file.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{path} does not exist; {WANTED}")
    result = read_json(path)
    rows = result.get("rows") if isinstance(result, dict) else None
    if not isinstance(rows, list) or not result.keys() >= BENCH or not all(BENCH_ROW <= row.keys() for row in rows):
        raise UsageError(f"{path} is no benchmark; {WANTED}")
    found: dict[str, Any] = result
    return found


def read_elsewhere(file: str | Path, variants: Sequence[Variant]) -> Elsewhere:
    """Read one, and find each row's model among the variants by the hash of its ONNX file.

    Raises:
        UsageError: no such file, another kind of file, or one in which no row is of a model here.
    """
    path, result = Path(file), read_benchmark(file)
    rows = result["rows"]
    files = {variant.name: variant.directory / ONNX for variant in variants}
    here = {sha256(file): name for name, file in files.items() if file.is_file()}
    known = [row | {"model": here[row["sha256"]]} for row in rows if row.get("sha256") in here]
    if not known:
        raise UsageError(
            f"{path} was measured of other models than {', '.join(v.name for v in variants)}; copy the deploy/ of one "
            "of these to that machine and measure there again"
        )
    return Elsewhere(result["machine"], known)


def machines_table(found: Sequence[Elsewhere]) -> Table:
    """A line for each model on each machine, and for each photo that was answered there."""
    head = ["machine", "model", "runtime", "threads", "median", "memory", "answer to a photo"]
    body = []
    for one in found:
        for row in one.rows:
            answers = {name: parts["whole_ms"] for name, parts in (row.get("answers") or {}).items()}
            first, *more = [f"{milliseconds(ms)}, {name}" for name, ms in answers.items()] or [MISSING]
            memory = megabytes(None if row["peak_mb"] is None else 1e6 * row["peak_mb"])
            body.append(
                [
                    Cell(str(one.machine.get("processor", MISSING)), [str(one.machine.get("system", ""))]),
                    Cell(quoted(row["model"])),
                    Cell(row["runtime"]),
                    Cell(str(row.get("threads", MISSING))),
                    Cell(milliseconds(row["median_ms"])),
                    Cell(memory),
                    Cell(first, more),
                ]
            )
    return Table(head, body, words=3)
