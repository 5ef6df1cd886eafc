"""Which of the files below a folder are images, and what is there that nobody put there on purpose.

- A folder is searched to any depth. Hidden files and folders (".name") are left out without a word.
- Files are taken by their extension, those that have none by their first bytes. Others are ignored.
- Folders that systems make (thumbnails of a NAS, what macOS leaves in archives, wastebaskets) are ignored.
- Links to folders are not followed, so that a loop is harmless.
- What has an image's extension and is neither a file nor a folder (a socket, a pipe) is ignored; a link to nothing
  is an image that is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from transfer.data.listing import Ignored
from zoo.image import EXTENSIONS, opens_as_image

EXTENSION = re.compile(r"\.[a-z][a-z0-9_~-]{0,9}", re.IGNORECASE)  # not ".2024" of a date, not ".jpg?w=300" of a URL
NAMES = ", ".join(sorted(EXTENSIONS))
# Synology and QNAP (thumbnails, recycle bins), macOS in archives, Windows, Linux, Picasa, Lightroom
SYSTEM_FOLDERS = frozenset(
    {
        "@eadir", "@__thumb", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin",
        "system volume information", "lost+found", "__pycache__",
    }
)  # fmt: skip
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
MADE_BY_SYSTEM = "made by the system, no photos of yours"


def image_files(folder: Path, ignored: list[Ignored]) -> Iterator[Path]:
    """The images below a folder, in no order; what is left out is added to `ignored`."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if is_system_folder(name)]:
            folders.remove(name)
            ignored.append(Ignored(os.path.join(here, name), MADE_BY_SYSTEM))
        for name in folders:
            if os.path.islink(os.path.join(here, name)):
                ignored.append(Ignored(os.path.join(here, name), "is a link to a folder"))
        for name in files:
            if name.startswith(".") or name.lower() in SYSTEM_FILES:
                continue
            path = Path(here, name)
            why = _not_an_image(path)
            if why:
                ignored.append(Ignored(str(path), why))
            else:
                yield path


def is_system_folder(name: str) -> bool:
    """Whether systems make folders of that name, to hold thumbnails or what was thrown away."""
    return name.lower() in SYSTEM_FOLDERS


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
