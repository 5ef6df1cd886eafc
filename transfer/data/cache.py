"""Arrays kept between runs: pixels, features, tables of measurements, under names that say what they were made from.

A file appears whole or not at all, is never changed, and is read through a memory map, so that any number of processes
share one copy of it. Nothing here is needed: what cannot be kept is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from zoo.disk import cache_directory  # also for those who import it from here
from zoo.errors import UsageError

KINDS = ("pixels", "features", "probes", "tables")  # the folders that are kept below the limit
LIMIT_GB = "SLIMZOO_CACHE_GB"  # the environment variable
DEFAULT_LIMIT_GB = 10.0
IN_USE_S = 60.0  # a file written or read so lately is never removed

Blocks = Callable[[], Iterator[NDArray[Any]]]  # the rows of an array in order, some at a time


def content_key(*parts: Iterable[str] | str) -> str:
    """One key for all of these lines; equal for equal lines alone."""
    digest = hashlib.sha256()
    for part in parts:
        lines = [part] if isinstance(part, str) else part
        for line in lines:
            digest.update(line.encode(errors="surrogateescape") + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()[:32]


def cached_array(kind: str, key: str, *, shape: tuple[int, ...], dtype: type[Any], make: Blocks) -> NDArray[Any]:
    """The array of that name, read-only: mapped from the disk if it is there, else made and kept.

    Args:
        kind: one of KINDS.
        key: says all that the array depends on.
        shape, dtype: what the array has; a file that has another is made again.
        make: gives the rows; called a second time where the disk turns out to be full half-way.

    Raises:
        UsageError: SLIMZOO_CACHE_GB is no number.
    """
    if 0 in shape:  # there is nothing to map
        return np.zeros(shape, dtype)
    path = cache_directory() / kind / f"{key}.npy"
    found = _open(path, shape, dtype)
    if found is not None:
        return found
    try:
        return _write(path, shape, dtype, make)
    except _CannotBeKept:
        array = np.empty(shape, dtype)
        _fill(array, make)
        array.flags.writeable = False  # as a map is: who changes it in place hears so on every machine
        return array


class _CannotBeKept(Exception):
    """The disk is full or may not be written."""


def _open(path: Path, shape: tuple[int, ...], dtype: type[Any]) -> NDArray[Any] | None:
    """None: absent, cut short, or of another shape."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # used now; access times are often not kept
    return array


def _write(path: Path, shape: tuple[int, ...], dtype: type[Any], make: Blocks) -> NDArray[Any]:
    """Write block by block, so that memory stays flat, and give the file its name when it is whole and on the disk.

    Plain writes and no writable map: on a full disk a write fails, and a store into a map kills the process.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    limit = _limit_bytes()
    work = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _trim(limit - size)
        if shutil.disk_usage(path.parent).free < size:
            raise _CannotBeKept
        file = work.open("wb")
    except OSError as error:
        raise _CannotBeKept from error
    try:
        try:
            _write_rows(file, shape, dtype, make)
        finally:
            with contextlib.suppress(OSError):  # what could not be written above cannot be now
                file.close()
        place = work
        if size <= limit:
            with contextlib.suppress(OSError):
                os.replace(work, path)  # before it is mapped: Windows renames no file that is
                place = path
        array = _open(place, shape, dtype)
        if array is None:
            raise _CannotBeKept
        return array  # without a name, as above the limit, the file is gone with this map
    finally:
        with contextlib.suppress(OSError):
            work.unlink(missing_ok=True)


def _write_rows(file: BinaryIO, shape: tuple[int, ...], dtype: type[Any], make: Blocks) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with _kept_or_not():
        np.lib.format.write_array_header_1_0(file, header)
    rows = 0
    for block in make():
        with _kept_or_not():
            file.write(np.ascontiguousarray(block, dtype=dtype).data)
        rows += len(block)
    assert rows == shape[0], f"{rows} rows for an array of shape {shape}"
    with _kept_or_not():
        file.flush()
        os.fsync(file.fileno())  # or the name could reach the disk before the bytes


@contextlib.contextmanager
def _kept_or_not() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _CannotBeKept from error


def _fill(array: NDArray[Any], make: Blocks) -> None:
    start = 0
    for block in make():
        array[start : start + len(block)] = block
        start += len(block)


def _limit_bytes() -> int:
    text = os.environ.get(LIMIT_GB, str(DEFAULT_LIMIT_GB))
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{LIMIT_GB}={text!r}: wanted a number of gigabytes, such as 10") from error


def _trim(room_bytes: int) -> None:
    """Remove the least recently used files until the rest fits into that many bytes."""
    files = []
    for kind in KINDS:
        with contextlib.suppress(OSError):
            for entry in os.scandir(cache_directory() / kind):
                with contextlib.suppress(OSError):  # another process removed it
                    status = entry.stat()
                    files.append((status.st_mtime, status.st_size, entry.path))
    total, now = sum(size for _, size, _ in files), time.time()
    for used, size, path in sorted(files):
        if total <= room_bytes or used > now - IN_USE_S:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            total -= size
