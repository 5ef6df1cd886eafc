"""Keep a measured figure in benchmarks/results/NAME.json, with what it was measured on and how to measure it again."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from compress.benchmark.machine import describe_machine
from zoo import lineage

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


def write_result(name: str, figures: dict[str, Any], command: str) -> Path:
    """Write the figures of one claim.

    Args:
        name: of the file, without .json.
        figures: JSON-ready, units in the names.
        command: what to type for the same again.
    """
    record = {
        "name": name,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **commit(),
        "machine": describe_machine(),
        "versions": lineage.versions(),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


class Rows:
    """What a long benchmark has measured so far, in results/NAME.runs.json, so that it goes on where it was stopped.

    Attributes:
        all: the rows, each with the commit that it was measured at, and the processor that it was measured on.
    """

    def __init__(self, name: str) -> None:
        self._file = RESULTS / f"{name}.runs.json"
        self.all: list[dict[str, Any]] = json.loads(self._file.read_text("utf-8")) if self._file.exists() else []

    def keep(self, *rows: dict[str, Any]) -> None:
        """All of these or none."""
        here = commit() | {"processor": processor()}
        self.all += [row | here for row in rows]
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self.all, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._file)

    def find(self, **row: Any) -> dict[str, Any] | None:
        """The first that is so."""
        return next((found for found in self.all if all(found[k] == v for k, v in row.items())), None)

    def finish(self) -> None:
        """Delete the file; the result holds its rows."""
        self._file.unlink()


def processor() -> str:
    """By its name, and what its speed depends on: processors of one name have different instructions."""
    found = describe_machine()
    return ", ".join([found["processor"], *found["flags"]])


def commit() -> dict[str, Any]:
    """`dirty`: the code measured was not exactly that of the commit. Results themselves do not count."""
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!zoo/pretrained/own_weights")
    return {"commit": head, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
