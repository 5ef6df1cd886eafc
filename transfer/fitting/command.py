"""Where `fit` speaks: in the main one of several processes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transfer.training.distributed import is_main, processes
from zoo.console import Console


@contextmanager
def console(*, as_json: bool = False) -> Iterator[Console]:
    """A console in which all but the main process are silent; the others are joined for the time of the block."""
    with processes(), Console(as_json=as_json, silent=not is_main()) as speaking:
        yield speaking
