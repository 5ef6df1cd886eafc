"""What people name on a command line when they mean images: files, folders, patterns that no shell expanded, a list on
standard input."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from transfer.data.image_files import image_files
from transfer.data.listing import Ignored
from zoo.errors import UsageError

STANDARD_INPUT = "-"
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+:/|data:)", re.IGNORECASE)  # one slash: Path takes one of two away


def check_names(words: Sequence[str]) -> None:
    """Refuse what names no file of this machine.

    Raises:
        UsageError: an address on the network.
    """
    for word in words:
        if ADDRESS.match(word) and not os.path.lexists(word):
            raise UsageError(f"{word[:80]} is an address, wanted files or folders; download it first")


def named_images(words: Sequence[str], ignored: list[Ignored]) -> Iterator[str]:
    """The files that are meant, in the order of the words; names on standard input as they come.

    A file that is named itself is one of them whatever it is; of a folder those that are images, sorted, and what is
    left out is added to `ignored`. A name of nothing, and a pattern that nothing matches, stays as it is.
    """
    for word in words:
        if word == STANDARD_INPUT:
            yield from _listed(ignored)
        elif os.path.lexists(word) or not glob.has_magic(word):
            yield from _below(word, ignored)
        else:
            for match in sorted(glob.glob(word, recursive=True)) or [word]:
                yield from _below(match, ignored)


def _below(name: str, ignored: list[Ignored]) -> Iterator[str]:
    if os.path.isdir(name):
        yield from map(str, sorted(image_files(Path(name), ignored)))
    else:
        yield name


def _listed(ignored: list[Ignored]) -> Iterator[str]:
    """Names on standard input, one per line, or with a null byte after each (`find -print0`)."""
    for number, line in enumerate(sys.stdin.buffer):
        names = line.rstrip(b"\r\n")
        if number == 0 and names[:4] in (b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"\x89PNG", b"RIFF", b"GIF8"):
            raise UsageError("standard input holds an image, wanted the names of image files, one per line")
        for name in names.split(b"\0"):
            if name:
                yield from _below(os.fsdecode(name), ignored)
