"""A process is killed, the power cut, or the disk full, at each system call that the saving of a checkpoint makes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from transfer.training.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from zoo.errors import SlimzooError

CALLS = ("open", "mkdir", "write", "fsync", "rename", "unlink", "rmdir")
MAKING = ("open", "mkdir", "write", "fsync", "rename")  # these need space


def fork(work: Callable[[], None]) -> int:
    """Do the work in a child process; its id."""
    child = os.fork()
    if child:
        return child
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def died(child: int) -> bool:
    """Wait for a child; whether a signal ended it.

    Raises:
        RuntimeError: it failed by itself.
    """
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError("a child process failed; its traceback is above")
    return os.WIFSIGNALED(status)


class Fault:
    """Lets the n-th of the calls fail in a given manner, counting from 0.

    Args:
        kind: "before" or "after" the call, the process is killed; "half": before it, half of the bytes written;
            "power": before it, and what was not flushed to the disk is cut in half; "full": the disk is.
    """

    def __init__(self, n: int, kind: str) -> None:
        self.n, self.kind, self.count, self.fired = n, kind, 0, False
        self._files: dict[int, str] = {}  # by descriptor
        self._unflushed: set[str] = set()

    @contextmanager
    def armed(self, calls: tuple[str, ...]) -> Iterator[Fault]:
        original = {name: getattr(os, name) for name in calls}
        try:
            for name in calls:
                setattr(os, name, self._wrapped(name, original[name]))
            yield self
        finally:
            for name in calls:
                setattr(os, name, original[name])

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if self.kind == "full" and name == "open" and not arguments[1] & os.O_CREAT:
                return call(*arguments, **options)  # reading needs no space
            if self.kind == "full" and self.fired:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            hit = self.count == self.n
            self.count += 1
            if hit:
                self.fired = True
                if self.kind in ("half", "full") and name == "write":
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                if self.kind == "full":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self.kind == "power":
                    for path in self._unflushed:
                        os.truncate(path, os.path.getsize(path) // 2)
                if self.kind != "after":
                    os.kill(os.getpid(), signal.SIGKILL)
            answer = call(*arguments, **options)
            if hit:
                os.kill(os.getpid(), signal.SIGKILL)
            self._note(name, arguments, answer)
            return answer

        return wrapped

    def _note(self, name: str, arguments: tuple[Any, ...], answer: Any) -> None:
        if name == "open":
            self._files[answer] = str(arguments[0])
        elif name == "write":
            self._unflushed.add(self._files[arguments[0]])
        elif name == "fsync":
            self._unflushed.discard(self._files[arguments[0]])


def checkpoint(step: int, *, halvings: int = 0, size: int = 1000) -> Checkpoint:
    files = ("model", "optimizer", "ema", "best")
    tensors = {file: {name: torch.full((size,), float(step)) for name in ("a", "b")} for file in files}
    return Checkpoint({"step": step, "halvings": halvings, "boundary": True}, tensors)


def same(found: Checkpoint | None, wanted: Checkpoint | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return found.state == wanted.state and all(
        torch.equal(found.tensors[file][name], tensor)
        for file, tensors in wanted.tensors.items()
        for name, tensor in tensors.items()
    )


def _damaged(directory: Path) -> None:
    place = save_checkpoint(directory, checkpoint(20))
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "model.safetensors").write_bytes(content)


def _leftover(directory: Path) -> None:
    (directory / "writing").mkdir(parents=True)
    (directory / "writing" / "model.safetensors").write_bytes(b"half")


# what is there before step 20 is saved: (steps saved, what else is done, halvings of the one saved)
SITUATIONS: dict[str, tuple[tuple[int, ...], Callable[[Path], None] | None, int]] = {
    "first": ((), None, 0),
    "second": ((10,), None, 0),
    "fourth": ((4, 7, 10), None, 0),
    "after a crash": ((10,), _leftover, 0),
    "the newest damaged": ((10,), _damaged, 0),
    "after going back": ((10, 20), None, 1),
}


def _prepare(directory: Path, situation: str) -> tuple[Checkpoint | None, Checkpoint]:
    steps, more, halvings = SITUATIONS[situation]
    for step in steps:
        save_checkpoint(directory, checkpoint(step))
    if more is not None:
        more(directory)
    return (checkpoint(steps[-1]) if steps else None), checkpoint(20, halvings=halvings)


def kill_points(*, every: int = 1) -> dict[str, Any]:
    """SIGKILL, or cut the power, before, in and after each call that saving a checkpoint makes, in each situation."""
    points = unreadable = newest = 0
    with tempfile.TemporaryDirectory() as scratch:
        for situation in SITUATIONS:
            for kind in ("before", "after", "half", "power"):
                n, finished = 0, False
                while not finished:
                    directory = Path(scratch, "checkpoints")
                    before, fresh = _prepare(directory, situation)

                    def work(n: int = n, kind: str = kind, fresh: Checkpoint = fresh, at: Path = directory) -> None:
                        with Fault(n, kind).armed(CALLS):
                            save_checkpoint(at, fresh)

                    finished = not died(fork(work))
                    points += not finished
                    readable, is_newest = _outcome(directory, before, fresh)
                    unreadable += not readable
                    newest += is_newest
                    shutil.rmtree(directory, ignore_errors=True)
                    n += every
    return {"kill_points": points, "unreadable": unreadable, "already_the_new_one": newest}


def _outcome(directory: Path, before: Checkpoint | None, fresh: Checkpoint) -> tuple[bool, bool]:
    """Whether the newest checkpoint, or at most the one before it, can be read, and whether it is the newest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the damaged one, where there is one
        try:
            found = newest_checkpoint(directory)
        except SlimzooError:
            return False, False
    return same(found, before) or same(found, fresh), same(found, fresh)


def full_disk(*, every: int = 1, mounted: bool = False) -> dict[str, Any]:
    """The disk is full at each write, and a file-size limit at many sizes.

    Args:
        mounted: also mount small file systems and fill them, where this process may.
    """
    writes = loads = lines = 0
    with tempfile.TemporaryDirectory() as scratch:
        for situation in SITUATIONS:
            n, fired = 0, True
            while fired:
                directory = Path(scratch, "checkpoints")
                before, fresh = _prepare(directory, situation)
                with Fault(n, "full").armed(MAKING) as fault:
                    lines += _says_full(lambda at=directory, kept=fresh: save_checkpoint(at, kept))
                fired = fault.fired
                writes += fired
                readable, _ = _outcome(directory, before, fresh)
                loads += readable and fired
                shutil.rmtree(directory, ignore_errors=True)
                n += every
        limits, limit_loads = _file_size_limits(Path(scratch), every)
    return {
        "writes": writes,
        "loads": loads,
        "errors_of_one_line": lines,
        "file_size_limits": limits,
        "loads_under_limits": limit_loads,
        **(_full_file_systems() if mounted else {}),
    }


def _says_full(work: Callable[[], Any]) -> bool:
    try:
        work()
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EFBIG)
    return False


def _file_size_limits(scratch: Path, every: int) -> tuple[int, int]:
    limits = range(0, 8200, 200 * every)
    loads = 0
    for limit in limits:
        directory = scratch / "limited"
        before, fresh = _prepare(directory, "second")

        def work(limit: int = limit, fresh: Checkpoint = fresh, at: Path = directory) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            assert _says_full(lambda: save_checkpoint(at, fresh))

        died(fork(work))
        loads += same(newest_checkpoint(directory), before)
        shutil.rmtree(directory)
    return len(limits), loads


def _full_file_systems() -> dict[str, Any]:
    sizes, loads, full = range(48, 160, 4), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", scratch]
            if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
                return {"file_systems": 0, "file_systems_reason": "not measured: no right to mount one"}
            try:
                directory = Path(scratch, "checkpoints")
                save_checkpoint(directory, checkpoint(10))
                full += _says_full(lambda at=directory: save_checkpoint(at, checkpoint(20, size=3000)))
                loads += newest_checkpoint(directory) is not None
            finally:
                subprocess.run(["umount", scratch], check=True)
    return {"file_systems": len(sizes), "of_them_full": full, "loads_on_them": loads}
