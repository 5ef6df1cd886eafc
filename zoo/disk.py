"""Files as every part of slimzoo writes and reads them: flushed, hashed, JSON and tensors, and where caches lie."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import SlimzooError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a full quota, a file-size limit
NAME_MAX, PATH_MAX = 255, 4096  # bytes, of Linux's and macOS's file systems


def cache_directory() -> Path:
    """$SLIMZOO_CACHE, else $XDG_CACHE_HOME/slimzoo, else ~/.cache/slimzoo."""
    if "SLIMZOO_CACHE" in os.environ:
        return Path(os.environ["SLIMZOO_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slimzoo"


def check_file(path: Path, option: str) -> None:
    """Refuse a place for a file before what it will hold is made.

    Raises:
        UsageError: it is a directory, or there is none to write it into.
    """
    above = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"{option} {path} is a directory; name a file in it")
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        state = "cannot be written to" if above.is_dir() else "is no directory"
        raise UsageError(f"{option} {path}: {above} {state}; make it, or name another place")
    if len(os.fsencode(path.name + ".partial")) > NAME_MAX:
        raise UsageError(f"{option} {str(path)[:40]}... is too long a name for a file; name a shorter one")


def json_bytes(document: Any) -> bytes:
    """A document as the files hold it, UTF-8, indented: what is no text in a file's name stays what it is, as an escape
    of JSON; a note of a kind that JSON does not know is its text, and no reason to fail."""
    return (json.dumps(document, indent=1, ensure_ascii=False, default=_plain) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def _plain(value: Any) -> Any:
    """NumPy's and torch's numbers and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def write_json(path: Path, document: Any) -> None:
    path.write_bytes(json_bytes(document))


def read_json(path: Path) -> Any:
    """
    Raises:
        SlimzooError: it cannot be read as JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SlimzooError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # of JSON, or of UTF-8
        raise SlimzooError(f"{path} is damaged, no JSON can be read from it ({error}); make it again") from error


def write_tensors(path: Path, tensors: dict[str, Tensor], said: dict[str, str] | None = None) -> None:
    """Write a safetensors file, as any other file: its own writer makes it private and hides the cause of a failure.

    Args:
        said: its metadata.
    """
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path.write_bytes(save(own, said))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_flushed(path: Path, content: bytes) -> None:
    """Write a file that is on the disk when this returns; its directory's entry is not yet (`fsync(path.parent)`).

    Raises:
        OSError: it could not be written; the error names the file.
    """
    binary = getattr(os, "O_BINARY", 0)  # without it Windows turns every b"\n" into two bytes
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | binary, 0o666)
    try:
        rest = memoryview(content)
        while len(rest):
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError as error:  # the kernel's own names no file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Write a file anew, whole or not at all: it is on the disk under another name before it takes this one."""
    new = path.with_name(path.name + ".new")
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        fsync(new)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Flush a file's content, or, where there is a way (not on Windows), a directory's entries, to the disk."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)  # Windows flushes what it may write
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
