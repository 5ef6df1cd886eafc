"""The folders and images below a folder, and what is there that nobody put there as data.

- A folder is searched to any depth. Hidden files and folders (".name") are left out without a word.
- Files are taken by their extension, those that have none by their first bytes. Others are ignored.
- Folders that systems make (thumbnails of a NAS, what macOS leaves in archives, wastebaskets) are ignored.
- What slimzoo wrote (model directories, runs in work, reports) is ignored.
- A class folder may be a link, but for one that leads to a folder which holds it. Links to folders further down are
  not followed, so that a loop is harmless.
- What has an image's extension and is neither a file nor a folder (a socket, a pipe) is ignored; a link to nothing
  is an image that is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from transfer.data.listing import Ignored
from zoo.files.directory import wrote
from zoo.image import EXTENSIONS, opens_as_image

EXTENSION = re.compile(r"\.[a-z][a-z0-9_~-]{0,9}", re.IGNORECASE)  # not ".2024" of a date, not ".jpg?w=300" of a URL
NAMES = ", ".join(sorted(EXTENSIONS))
# Synology and QNAP (thumbnails, recycle bins), macOS in archives, Windows, Linux, Picasa, Lightroom
SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",
        "@__thumb",
        "@recycle",
        "#recycle",
        "#snapshot",
        "__macosx",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
MADE_BY_SYSTEM = "made by the system, no photos of yours"
WRITTEN = "was written by slimzoo"
LOOP = "is a link to a folder that holds it"


def image_files(folder: Path, ignored: list[Ignored]) -> Iterator[Path]:
    """The images below a folder, in no order; what is left out is added to `ignored`."""
    for here, folders, files in os.walk(folder):
        inside = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in inside if not _no_data(Path(here, name))]
        for name in inside:
            if why := _no_data(Path(here, name)):
                ignored.append(Ignored(os.path.join(here, name), why))
            elif os.path.islink(os.path.join(here, name)):
                ignored.append(Ignored(os.path.join(here, name), "is a link to a folder"))
        for name in files:
            if _is_hidden(name):
                continue
            path = Path(here, name)
            why = _not_an_image(path)
            if why:
                ignored.append(Ignored(str(path), why))
            else:
                yield path


def visible(folder: Path) -> list[Path]:
    """What is directly in a folder, by name; ".name" is hidden, and so are files that systems leave."""
    return sorted(child for child in folder.iterdir() if not _is_hidden(child.name))


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder that may hold images: not a loop, not a system's, and not what slimzoo wrote."""
    with os.scandir(folder) as entries:  # which asks no file what it is: there may be a million of them
        found = [Path(entry.path) for entry in entries if not _is_hidden(entry.name) and _is_dir(entry)]
    return sorted(child for child in found if not why_no_data(child))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Tell a folder, also by a link to one; a link to itself is none."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def why_no_data(child: Path) -> str:
    """Why nobody put a folder there as data; "" if somebody may have."""
    home = child.parent.resolve()
    if child.is_symlink() and child.resolve() in (home, *home.parents):
        return LOOP
    return _no_data(child)


def is_image(path: Path) -> bool:
    """Whether a file is taken for an image, and is not hidden."""
    return not _is_hidden(path.name) and not _not_an_image(path)


def has_image_name(name: str) -> bool:
    """Whether a name in a table is an image's, by its extension."""
    base = os.path.basename(name)
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in EXTENSIONS


def has_images(folder: Path, *, below: bool = True) -> bool:
    """Whether there is an image in the folder, or also below it; looked for until the first."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(Path(entry.path))
            elif is_image(Path(entry.path)):
                return True
    return below and any(not _is_hidden(child.name) and not _no_data(child) and has_images(child) for child in inner)


def holds_only_output(folder: Path) -> bool:
    """Whether folders that slimzoo wrote are all the folders there are, and no image is beside them, at any depth."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not _is_hidden(entry.name):
                inner.append(Path(entry.path))
            elif is_image(Path(entry.path)):
                return False
    return bool(inner) and all(wrote(child) or holds_only_output(child) for child in inner)


def _no_data(folder: Path) -> str:
    """Why a folder, which is no loop, is never data."""
    if folder.name.lower() in SYSTEM_FOLDERS:
        return MADE_BY_SYSTEM
    return WRITTEN if wrote(folder) else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def _not_an_image(path: Path) -> str:
    """Why a file is not taken for an image; "" if it is one by its name, or by its first bytes where it has none."""
    suffix = path.suffix.lower()
    if suffix in EXTENSIONS:
        return "" if path.is_file() or (path.is_symlink() and not path.exists()) else "is not a file"
    if EXTENSION.fullmatch(suffix):
        return suffix
    if path.is_file() and opens_as_image(path):
        return ""
    return f"{suffix}, no image by its first bytes" if suffix else "no extension, no image by its first bytes"
