"""Downloads: what comes and how large it is is said first; resumable, checked by hash, forbidden by SLIMZOO_OFFLINE=1.

A file arrives as PATH.part, which an interruption, a cut line or a full disk leaves for the next attempt; it becomes
PATH when its SHA-256 is right.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import math
import os
import queue
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from zoo.disk import NO_SPACE, sha256
from zoo.errors import Interrupted, SlimzooError, UsageError
from zoo.progress import Progress

OFFLINE = "SLIMZOO_OFFLINE"  # the environment variable
FORBIDDEN = "downloads are forbidden"
CONNECT_S = 5.0  # for the first answer: a machine with no network hears so at once
STALL_S = 60.0  # between two answers, once the file is coming
CHUNK_BYTES = 1 << 20

_log = logging.getLogger("slimzoo")


def is_offline() -> bool:
    """Whether downloads are forbidden."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def forbid() -> None:
    """Forbid downloads in this process and in those that it starts."""
    os.environ[OFFLINE] = "1"


@contextlib.contextmanager
def forbidden_downloads() -> Iterator[None]:
    """Forbid downloads, in this process and those that it starts, for the time of the block."""
    before = os.environ.get(OFFLINE)
    forbid()
    try:
        yield
    finally:
        if before is None:
            del os.environ[OFFLINE]
        else:
            os.environ[OFFLINE] = before


def reachable(address: str) -> bool:
    """One request, and at most five seconds for it: names that nobody resolves would take longer."""
    answer: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=CONNECT_S).close()
        except urllib.error.HTTPError as error:  # it answered
            error.close()
        except (OSError, http.client.HTTPException):
            answer.put(False)
            return
        answer.put(True)

    threading.Thread(target=ask, daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return answer.get(timeout=CONNECT_S)
    return False


def check_reachable(name: str, address: str, *, size_bytes: float | None = None, forbidden: bool = False) -> None:
    """Refuse at once a download that is forbidden or that will not come, and say what there is without it."""
    if forbidden or is_offline():
        raise not_here(name, FORBIDDEN, size_bytes)
    if not reachable(address):
        raise not_here(name, f"{urlsplit(address).netloc} cannot be reached", size_bytes)


def not_here(name: str, why: str, size_bytes: float | None) -> UsageError:
    """The error for weights that are not on this machine and will not come."""
    from zoo.pretrained.weights import offline_models

    size = "" if size_bytes is None else f" ({megabytes(size_bytes)})"
    known = ", ".join(offline_models())
    return UsageError(f"the weights of {name}{size} are not on this machine and {why}; pretrained offline: {known}")


def announce(what: str, size_bytes: int | None, *, here: int = 0) -> None:
    """Say what will be downloaded and how large it is: a line of the logger "slimzoo", on stderr unless configured."""
    size = "of unknown size" if size_bytes is None else megabytes(size_bytes)
    _log.warning("downloading %s (%s%s)", what, size, f", {megabytes(here)} of it are here" if here else "")


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def verify(path: Path, digest: str, *, otherwise: str = "damaged; delete it, and it is fetched again") -> None:
    """Compare a file with its SHA-256, or with the first digits of it.

    Raises:
        SlimzooError: it is another file; the message ends with `otherwise`.
    """
    found = sha256(path)
    if not found.startswith(digest):
        raise SlimzooError(f"{path} has sha256 {found[:12]}..., not {digest[:12]}... as recorded: {otherwise}")


def download(url: str, path: Path, *, sha256: str, progress: Progress | None = None) -> None:
    """Fetch a file, going on where an earlier attempt stopped.

    Args:
        path: the file to make; its folder is made too.
        sha256: of the file, or the first digits of it.
        progress: told of every megabyte.

    Raises:
        SlimzooError: no such file, another file (which is removed), a cut line or a full disk (PATH.part stays).
        Interrupted: Ctrl-C or SIGTERM (PATH.part stays).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _alone(path):
        if path.exists():  # another process was faster
            return
        try:
            with part.open("ab", buffering=0) as file:
                _fill(file, url, path.name, progress)
                os.fsync(file.fileno())
        except KeyboardInterrupt as error:
            code = getattr(error, "exit_code", 130)
            raise Interrupted(f"interrupted; {_keep(part)}", exit_code=code) from error
        except urllib.error.HTTPError as error:
            raise SlimzooError(f"{url} answered {error.code} {error.reason}; {_keep(part)}") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise SlimzooError(f"the disk of {path.parent} is full: free some space; {_keep(part)}") from error
            raise SlimzooError(f"the download of {path.name} stopped ({error}); {_keep(part)}") from error
        try:
            verify(part, sha256, otherwise=f"{url} gave another file; it was removed")
        except SlimzooError:
            part.unlink()
            raise
        os.replace(part, path)


def _keep(part: Path) -> str:
    """Leave what came for the next attempt, and say so."""
    if not part.stat().st_size:
        part.unlink()
        return "nothing was kept"
    return f"{part} keeps {megabytes(part.stat().st_size)}, and the next attempt goes on from there"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time makes the file, the others wait: a lock beside it, which goes when the file is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where a system locks no files, one that is there or not does as well
        from filelock import FileLock

    lock = path.with_name(path.name + ".lock")
    with FileLock(lock):
        yield
    with contextlib.suppress(OSError):  # Windows removes it by itself, or keeps it while another process waits for it
        lock.unlink()  # whoever waits for it, or makes it anew, finds the file


def _fill(file: io.FileIO, url: str, name: str, progress: Progress | None) -> None:
    """Append what is missing."""
    done = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=STALL_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            error.close()
            return  # there is nothing after what is here; its hash will tell
        raise
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:  # this server sends whole files only
            file.truncate(0)
            done = 0
        rest = answer.headers["Content-Length"]
        total = None if rest is None else done + int(rest)
        announce(name, total, here=done)
        while chunk := answer.read(CHUNK_BYTES):
            _write(file, chunk)
            done += len(chunk)
            if progress is not None and total:
                note = f"{megabytes(done)} of {megabytes(total)}"
                progress(f"downloading {name}", math.ceil(done / 1e6), math.ceil(total / 1e6), note)
        if total is not None and done < total:
            raise ConnectionError(f"the connection was cut after {megabytes(done)} of {megabytes(total)}")


def _write(file: io.FileIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:  # a nearly full disk takes a part
        left = left[file.write(left) :]
