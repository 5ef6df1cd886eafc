"""A benchmark that was interrupted: what its processes measured is kept beside the file to come, and gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.benchmark.rows import Row
from zoo.disk import read_json, replace_text, sha256
from zoo.errors import Interrupted, SlimzooError

MEASURED = (
    *("opened", "reason", "rounds", "device_rounds", "taken", "joules", "launches", "answers"),
    *("peak_bytes", "device_peak_bytes", "answer_bytes"),
)


class Unfinished:
    """What the launches of a benchmark measured so far, for one that has a file to write.

    Args:
        save: that file; None keeps nothing.
        terms: all that must be equal to go on with it, ready for JSON: settings, machine, versions. The rows' models,
            runtimes and files are added.
    """

    def __init__(self, save: str | Path | None, terms: Mapping[str, Any], rows: Sequence[Row]) -> None:
        self._file = None if save is None else Path(f"{save}.batch-{terms['batch']}.unfinished")
        files = [None if row.file is None or not row.file.is_file() else sha256(row.file) for row in rows]
        names = [[row.model, row.runtime, row.precision, file] for row, file in zip(rows, files, strict=True)]
        self._key = hashlib.sha256(json.dumps([terms, names, MEASURED], sort_keys=True).encode()).hexdigest()

    def restore(self, rows: Sequence[Row]) -> tuple[int, dict[str, Any] | None]:
        """Fill the rows with what an equal benchmark measured before it was interrupted.

        Returns:
            How many launches that were, and what was measured of the reference's twin; 0 and None where nothing is
            kept, or it is of another benchmark.
        """
        if self._file is None or not self._file.is_file():
            return 0, None
        try:
            kept = read_json(self._file)
            if kept["key"] != self._key:
                return 0, None
            for row, measured in zip(rows, kept["rows"], strict=True):
                fill(row, measured)
            return int(kept["launches"]), kept["twin"]
        except (SlimzooError, KeyError, TypeError, ValueError):
            return 0, None

    def keep(self, rows: Sequence[Row], twin: Row | None, launches: int) -> None:
        """Write what is measured by the end of a launch, whole or not at all."""
        if self._file is None:
            return
        document = {"key": self._key, "launches": launches, "rows": [_measured(row) for row in rows]}
        document["twin"] = None if twin is None else _measured(twin)
        replace_text(self._file, json.dumps(document))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Say of an interrupt in the block that the same command goes on."""
        try:
            yield
        except KeyboardInterrupt as error:
            if self._file is None or not self._file.exists():
                raise
            code = getattr(error, "exit_code", 130)
            raise Interrupted("interrupted; the same command goes on where it was", exit_code=code) from error

    def remove(self) -> None:
        """Nothing is kept any longer: the result is written."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def fill(row: Row, measured: Mapping[str, Any]) -> None:
    for name in MEASURED:
        setattr(row, name, measured[name])


def _measured(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in MEASURED}
