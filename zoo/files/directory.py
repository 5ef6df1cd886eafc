"""Output directories that appear whole or not at all, and whose files are checked at every load.

Work goes on in DIR.partial/, which is flushed to the disk and renamed at the end. MANIFEST.sha256 (the format of
`sha256sum`) lists every file that was there then.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.disk import NAME_MAX, NO_SPACE, PATH_MAX, fsync, json_bytes, replace_text
from zoo.errors import Interrupted, SlimzooError, UsageError
from zoo.files.manifest import CHECKPOINTS, MANIFEST, RUN, TRIALS, write_manifest
from zoo.process import is_another, this_process

REHEARSAL = "rehearsal"  # see zoo/files/rehearsal.py
LONGEST_SUFFIX = ".old-12345678"  # of what lies beside an output directory for a while
LONGEST_INSIDE = 120  # characters of a file's path inside it
PARTIAL = ".partial"  # ends the name of a directory in work


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
        begun = {**run, "overwrite": overwrite, "process": this_process()}
        replace_text(partial / RUN, json_bytes(begun).decode())
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
    """Of a training that can go on, or of a search, whose trials are kept elsewhere."""
    kept = partial / CHECKPOINTS
    return (kept / TRIALS).is_file() or any(kept.glob("**/step-*/state.json"))  # not one that was still being written


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
    _check_idle(partial)
    if partial.exists() and has_checkpoint(partial) and not (resume or overwrite):
        raise UsageError(
            f"{partial} holds an interrupted run; continue it with `slimzoo resume {out}`, "
            "or start afresh with --overwrite"
        )


def _check_idle(partial: Path) -> None:
    """Refuse a directory in which another process is at work."""
    try:
        process = json.loads((partial / RUN).read_text(encoding="utf-8"))["process"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if is_another(process):
        raise UsageError(
            f"process {process['pid']} is at work in {partial}; wait for it, stop it, or name another --out"
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
    except (OSError, ValueError):
        return False


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
