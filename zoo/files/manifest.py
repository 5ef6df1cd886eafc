"""MANIFEST.sha256: the hash of every file of a finished directory, in the format of `sha256sum`."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from zoo.disk import fsync, replace_text, sha256
from zoo.errors import SlimzooError

MANIFEST = "MANIFEST.sha256"
RUN = "run.json"  # with the next, what serves the work only
CHECKPOINTS = "checkpoints"
TRIALS = "trials.json"  # in the latter, of a search: what was found so far


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
        replace_text(directory / MANIFEST, "".join(f"{digest}  {name}\n" for digest, name in sorted(both)))
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
    replace_text(directory / MANIFEST, "".join(f"{digest}  {name}\n" for digest, name in sorted(pairs)))
