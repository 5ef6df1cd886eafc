"""A run of a step: the directory that it makes, what is recorded of it, and the skeleton that all steps share."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo import lineage
from zoo.disk import read_json
from zoo.errors import UsageError
from zoo.files.directory import check_free, new_directory, partial_of
from zoo.files.manifest import RUN
from zoo.lineage import IN_MEMORY


class Run:
    """One run. Its directory is refused when this is made, before any work is done for it.

    Args:
        verb: the step's name.
        arguments: for the record, ready for JSON; they make the same run again.
        out: the directory to make; None works in one that goes away.
        overwrite, resume: see `zoo.files.directory.new_directory`.
        makes: whether it is this process that makes the directory, of several.

    Raises:
        UsageError: see `check_free`.
    """

    def __init__(
        self,
        verb: str,
        arguments: dict[str, Any],
        *,
        out: str | Path | None,
        seed: int = 0,
        overwrite: bool = False,
        resume: bool = False,
        makes: bool = True,
    ) -> None:
        self.verb, self.arguments, self.out, self.seed = verb, arguments, None if out is None else Path(out), seed
        self.overwrite, self.resume = overwrite, resume
        self.data: dict[str, Any] | None = None  # what the record says of the images
        self._began = time.monotonic()
        if makes and self.out is not None:
            check_free(self.out, overwrite=overwrite, resume=resume)

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """OUT.partial/ to work in; when the block ends well, it becomes OUT. Without OUT, a folder that goes away."""
        if self.out is None:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder)
            return
        run = {"verb": self.verb, "arguments": self.arguments}
        if self.resume:
            self._check_same()
        with new_directory(self.out, run=run, overwrite=self.overwrite, resume=self.resume) as work:
            yield work

    def _check_same(self) -> None:
        """Refuse to go on with another module in memory than the one that the run was begun with."""
        path = partial_of(self.out or Path()) / RUN
        begun = read_json(path)["arguments"] if path.is_file() else {}
        for name, value in begun.items():
            if str(value).startswith(IN_MEMORY) and self.arguments.get(name) != value:
                raise UsageError(
                    f"{self.out} was begun with {value.removeprefix(IN_MEMORY)}, this is "
                    f"{str(self.arguments.get(name)).removeprefix(IN_MEMORY)}: give the same, or start afresh"
                )

    def record(self, *, done: bool = True, **found: Any) -> dict[str, Any]:
        """The lineage record.

        Args:
            done: False for a rehearsal, before anything took its time.
            found: `before` and `after`, metrics, and notes of the step's own.
        """
        seconds = time.monotonic() - self._began if done else 0.0
        return lineage.step(self.verb, self.arguments, seed=self.seed, seconds=seconds, data=self.data, **found)
