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
    """The folders directly in a folder that may hold images: not a loop, and not what slimzoo wrote."""
    home = folder.resolve()
    return [child for child in visible(folder) if child.is_dir() and not is_loop(child, home) and not wrote(child)]


def is_loop(child: Path, home: Path) -> bool:
    """Whether it is a link to a folder that holds it."""
    return child.is_symlink() and child.resolve() in (home, *home.parents)


def is_image(name: str) -> bool:
    """By its extension, and not hidden."""
    base = os.path.basename(name)
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in EXTENSIONS


def has_images(folder: Path, *, below: bool = True) -> bool:
    """Whether there is an image in the folder, or also below it; looked for until the first."""
    for here, folders, files in os.walk(folder):
        if any(is_image(name) for name in files):
            return True
        if not below:
            return False
        folders[:] = [name for name in folders if not name.startswith(".") and not wrote(Path(here, name))]
    return False


def holds_only_output(folder: Path) -> bool:
    """Whether what slimzoo wrote is all that there is, at any depth: a folder of models."""
    children = visible(folder)
    folders = [child for child in children if child.is_dir() and not child.is_symlink()]
    made = [child for child in folders if wrote(child)]
    inner = [child for child in folders if child not in made]
    return bool(made or inner) and not has_images(folder) and all(holds_only_output(child) for child in inner)
