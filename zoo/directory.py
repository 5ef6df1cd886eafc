"""Output directories that appear whole or not at all, and whose files are checked at every load.

Work goes on in DIR.partial/, which is flushed to the disk and renamed at the end. MANIFEST.sha256 (the format of
`sha256sum`) lists every file that was there then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import Interrupted, SlimzooError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "MANIFEST.sha256"
RUN = "run.json"
CHECKPOINTS = "checkpoints"
REHEARSAL = "rehearsal"  # see zoo/rehearsal.py
LONGEST_SUFFIX = ".old-12345678"  # of what lies beside an output directory for a while
LONGEST_INSIDE = 120  # characters of a file's path inside it
NAME_MAX, PATH_MAX = 255, 4096  # bytes, of Linux's and macOS's file systems
PARTIAL = ".partial"  # ends the name of a directory in work
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a full quota, a file-size limit


def cache_directory() -> Path:
    """$SLIMZOO_CACHE, else $XDG_CACHE_HOME/slimzoo, else ~/.cache/slimzoo."""
    if "SLIMZOO_CACHE" in os.environ:
        return Path(os.environ["SLIMZOO_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slimzoo"


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + PARTIAL)


@contextmanager
def new_directory(out: Path, *, run: dict[str, Any], overwrite: bool = False, resume: bool = False) -> Iterator[Path]:
    """Yield OUT.partial/ to work in; when the block ends well, it becomes OUT.

    When the block raises, OUT.partial/ stays only if it holds a checkpoint to resume from.

    Args:
        out: the directory to make.
        run: {"verb": ..., "arguments": {...}}, kept in run.json while the work goes on, for `slimzoo resume`.
        overwrite: replace `out`, which must be empty or made by slimzoo.
        resume: continue in the OUT.partial/ of an interrupted run.

    Raises:
        UsageError: `out` is taken, or an interrupted run waits in OUT.partial/.
    """
    check_free(out, overwrite=overwrite, resume=resume)
    partial = partial_of(out)
    overwrite = overwrite or (resume and _asked_to_overwrite(partial))
    if partial.exists() and not resume:
        shutil.rmtree(partial)
    whole = False
    try:
        _make(partial)
        write_json(partial / RUN, {**run, "overwrite": overwrite})
        yield partial
        write_manifest(partial)
        _flush(partial)
        shutil.rmtree(partial / CHECKPOINTS, ignore_errors=True)
        (partial / RUN).unlink()
        whole = True
        _take_place(partial, out)
    except BaseException as error:
        resumable = partial.exists() and has_checkpoint(partial)
        if whole and isinstance(error, OSError) and partial.exists():
            reason = f"{partial} is complete and could not be renamed ({error.strerror})"
            raise SlimzooError(f"{reason}; move it to another place, where it is a model directory as any") from error
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt):
            after = f"continue with `slimzoo resume {out}`" if resumable else "nothing was written"
            raise Interrupted(f"interrupted; {after}", exit_code=getattr(error, "exit_code", 130)) from error
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            after = f"; then continue with `slimzoo resume {out}`" if resumable else ""
            raise SlimzooError(f"the disk of {out} is full: free some space, or name another --out{after}") from error
        raise


def _make(partial: Path) -> None:
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise UsageError(f"{partial} cannot be made ({error.strerror}); name another --out") from error


def has_checkpoint(partial: Path) -> bool:
    return any((partial / CHECKPOINTS).glob("**/step-*/state.json"))  # not one that was still being written


def check_free(out: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse an output directory before any work is done for it.

    Raises:
        UsageError: as `new_directory` says.
    """
    _check_place(out)
    partial = partial_of(out)
    overwrite = overwrite or (resume and _asked_to_overwrite(partial))
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a new directory with --out")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise UsageError(f"{out} exists and is not empty; name another --out, or replace it with --overwrite")
        if not is_ours(out):
            raise UsageError(f"{out} was not made by slimzoo and is left alone; name another --out")
    if partial.exists() and not partial.is_dir():
        raise UsageError(f"{partial} is a file, and the work goes on in a directory of that name; move it")
    if partial.exists() and any(partial.iterdir()) and not (partial / RUN).exists() and not is_ours(partial):
        raise UsageError(f"{partial} was not made by slimzoo and is in the way; move it, or name another --out")
    if partial.exists() and has_checkpoint(partial) and not (resume or overwrite):
        raise UsageError(
            f"{partial} holds an interrupted run; continue it with `slimzoo resume {out}`, "
            "or start afresh with --overwrite"
        )


def _check_place(out: Path) -> None:
    """Refuse a name under which no directory could appear in the end."""
    if out.name in ("", ".."):
        raise UsageError(f"{out} is no name for a new directory; name one, such as --out {out / 'model'}")
    if os.path.ismount(out):
        raise UsageError(
            f"{out} is where a file system is mounted, and is not replaced; name one in it: {out / out.name}"
        )
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out} is a link to {os.readlink(out)}, which does not exist; name another --out")
    length = len(os.fsencode(out.name + LONGEST_SUFFIX))
    if length > NAME_MAX or len(os.fsencode(out)) + LONGEST_INSIDE > PATH_MAX:
        raise UsageError(
            f"--out {str(out)[:40]}... is too long a name for a directory: {length} bytes; name a shorter one"
        )
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{above} is a file, and no directory can lie in it; name another --out")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{above} cannot be written to; name another --out")


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


def check_addable(directory: Path) -> None:
    """Refuse a finished directory to which `replace_files` could not add, before what is to be added is made.

    Raises:
        UsageError: it may not be written to.
    """
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{directory} cannot be written to; copy it to another place first")


def is_ours(directory: Path) -> bool:
    """Whether slimzoo made the directory: it carries a manifest, or its only content is directories that do."""
    if (directory / MANIFEST).exists():
        return True
    return all((child / MANIFEST).exists() for child in directory.iterdir())


def wrote(directory: Path) -> bool:
    """Whether slimzoo wrote this very directory, or is about to: a model, findings, or the work of a run."""
    if (directory / MANIFEST).is_file():
        return True
    return directory.name.endswith(PARTIAL) and ((directory / RUN).is_file() or (directory / CHECKPOINTS).is_dir())


def _asked_to_overwrite(partial: Path) -> bool:
    try:
        return bool(json.loads((partial / RUN).read_text(encoding="utf-8")).get("overwrite"))
    except OSError:
        return False


def write_json(path: Path, document: Any) -> None:
    path.write_bytes(json_bytes(document))


def json_bytes(document: Any) -> bytes:
    """A document as the files hold it, UTF-8, indented: what is no text in a file's name stays what it is, as an escape
    of JSON; a note of a kind that JSON does not know is its text, and no reason to fail."""
    return (json.dumps(document, indent=1, ensure_ascii=False, default=_plain) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def _plain(value: Any) -> Any:
    """NumPy's and torch's numbers and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


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


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, as any other file: its own writer makes it private and hides the cause of a failure."""
    from safetensors.torch import save

    path.write_bytes(save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path) -> None:
    """List every file below `directory`, manifests excepted, and what serves the work only."""
    files = sorted(p.relative_to(directory) for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST)
    lines = [
        f"{sha256(directory / file)}  {file.as_posix()}\n" for file in files if file.parts[0] not in (RUN, CHECKPOINTS)
    ]
    (directory / MANIFEST).write_text("".join(lines), encoding="utf-8", newline="\n")


def read_manifest(directory: Path) -> dict[str, set[str]]:
    """File name -> the hashes that it may have (two while `replace_files` is at work)."""
    try:
        lines = (directory / MANIFEST).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SlimzooError(
            f"{directory} has no readable {MANIFEST}; it is not a directory that slimzoo made"
        ) from error
    hashes: dict[str, set[str]] = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        hashes.setdefault(name, set()).add(digest)
    return hashes


def verify_manifest(directory: Path) -> None:
    """Compare every listed file with its hash.

    Raises:
        SlimzooError: a file is missing, damaged or changed; the message names it.
    """
    for name, digests in read_manifest(directory).items():
        path = directory / name
        if not path.is_file():
            raise SlimzooError(f"{path} is listed in {MANIFEST} and missing; restore it or make the directory again")
        if sha256(path) not in digests:
            raise SlimzooError(f"{path} is not what {MANIFEST} says: damaged or edited; restore it or make it again")


def replace_files(directory: Path, files: dict[str, bytes]) -> None:
    """Replace or add files of a finished directory so that a crash at any point leaves it loadable.

    The manifest first allows both the old and the new content, then each file is renamed into place, then the manifest
    forgets the old.
    """
    hashes = read_manifest(directory)
    fresh = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    both = [(digest, name) for name, digests in hashes.items() for digest in digests]
    both += [(fresh[name], name) for name in files if name in hashes]
    replacements = {name + ".new": content for name, content in files.items()}
    try:
        for name, content in replacements.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(content)
            fsync(directory / name)
        _replace(directory / MANIFEST, "".join(f"{digest}  {name}\n" for digest, name in sorted(both)))
        for name in files:
            os.replace(directory / (name + ".new"), directory / name)
    except BaseException:
        for name in replacements:
            (directory / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a folder that holds anything else stays
                (directory / name).parent.rmdir()
        raise
    final = {name: digests for name, digests in hashes.items() if name not in fresh}
    pairs = [(digest, name) for name, digests in final.items() for digest in digests]
    pairs += [(digest, name) for name, digest in fresh.items()]
    _replace(directory / MANIFEST, "".join(f"{digest}  {name}\n" for digest, name in sorted(pairs)))


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        fsync(new)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def _take_place(partial: Path, out: Path) -> None:
    if not out.exists():
        os.rename(partial, out)
        fsync(out.parent)
        return
    aside = Path(tempfile.mkdtemp(prefix=out.name + ".old-", dir=out.parent))  # a name that nobody has taken
    old = aside / out.name  # not `aside` itself: Windows renames onto nothing that is there
    os.rename(out, old)
    try:
        os.rename(partial, out)
    except BaseException:
        os.rename(old, out)
        aside.rmdir()
        raise
    fsync(out.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _flush(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        fsync(path)


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
