"""The folders and image files below a folder, and what is never looked at: what is hidden, what slimzoo wrote."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.directory import wrote
from zoo.image import EXTENSIONS


def visible(folder: Path) -> list[Path]:
    """What is directly in a folder, by name; ".name" is hidden."""
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder that may hold images, by name: not a loop, and not what slimzoo wrote."""
    home = folder.resolve()
    with os.scandir(folder) as entries:  # which asks no file what it is: there may be a million of them
        found = [Path(entry.path) for entry in entries if not entry.name.startswith(".") and _is_dir(entry)]
    return sorted(child for child in found if not is_loop(child, home) and not wrote(child))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Also a link to one; a link to itself is none."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def is_loop(child: Path, home: Path) -> bool:
    """Whether it is a link to a folder that holds it."""
    return child.is_symlink() and child.resolve() in (home, *home.parents)


def is_image(name: str) -> bool:
    """By its extension, and not hidden."""
    base = os.path.basename(name)
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in EXTENSIONS


def has_images(folder: Path, *, below: bool = True) -> bool:
    """Whether there is an image in the folder, or also below it; looked for until the first."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(Path(entry.path))
            elif is_image(entry.name) and not _is_dir(entry):
                return True
    return below and any(not child.name.startswith(".") and not wrote(child) and has_images(child) for child in inner)


def holds_only_output(folder: Path) -> bool:
    """Whether folders that slimzoo wrote are all the folders there are, and no image is beside them, at any depth."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                inner.append(Path(entry.path))
            elif is_image(entry.name):
                return False
    return bool(inner) and all(wrote(child) or holds_only_output(child) for child in inner)
