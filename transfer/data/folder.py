"""Image folders: one folder a class, or train/ val/ test/ of those; `transfer.data.layout` says which.

- A class folder is searched to any depth. Hidden files and folders (".name") are left out without a word.
- Files are taken by their extension; others are ignored, and `data check` lists them.
- A class folder may be a link. Links to folders further down are not followed, nor is one that leads to a folder
  which holds it: both are ignored, so that a loop is harmless.
- What has an image's extension and is neither a file nor a folder (a socket, a pipe) is ignored; a link to nothing
  is an image that is missing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.layout import read_layout
from transfer.data.listing import Ignored, Listing, Problem, list_files
from transfer.data.part_names import parts_of
from transfer.data.split import TRAIN
from transfer.data.walk import is_image, subfolders, visible
from zoo.directory import wrote
from zoo.errors import DataError
from zoo.image import EXTENSIONS

NAMES = ", ".join(sorted(EXTENSIONS))
UNLABELLED = "unlabelled"


def list_folder(root: Path, layout: str = "auto", known: Collection[str] = ()) -> Listing:
    """See `read_layout`.

    Raises DataError where there is no image at all, or it cannot be told what the folders are.
    """
    read = read_layout(root, layout, known)
    found: list[tuple[Path, str, str]] = []
    problems: list[Problem] = []
    ignored = list(read.ignored)
    for folder in read.folders:
        files = sorted(_files(folder.path, ignored))
        if not files:
            text = f"{folder.path}: a class without images ({NAMES}); fill it or remove it"
            problems.append(Problem("empty class", str(folder.path), text))
        found += [(path, folder.name, folder.part) for path in files]
    if not found and not problems:
        raise DataError(_without_classes(root))
    notes = (read.said, *filter(None, (read.left,)), *(f"warning: {doubt}" for doubt in read.doubts))
    return replace(list_files(str(root), found, problems=problems, ignored=ignored), notes=notes)


def _without_classes(root: Path) -> str:
    """What is said of a folder in which there is no class."""
    children = visible(root)
    plain = sum(is_image(child.name) for child in children)
    tables = [child for child in children if child.suffix.lower() in (".csv", ".tsv", ".parquet")]
    table = f"the table {tables[0]} if it has the labels" if tables else "a CSV file with path,label"
    return (
        f"{root}: {f'{plain} images and no folders of classes' if plain else 'no images'}; wanted one folder a class "
        f"with {NAMES} files inside, such as {root / 'cat' / '1.jpg'}, or {table}"
    )


def list_images(root: Path, *, most: int, seed: int) -> Listing:
    """Images below a folder, at any depth, as of one class; of train/ alone where there is one.

    Args:
        most: how many; by chance, by `seed`, where there are more, and no others are opened.

    Raises DataError where there is no image at all.
    """
    ignored: list[Ignored] = []
    found = [path for tree in _training_trees(root) for path in sorted(_files(tree, ignored))]
    if not found:
        raise DataError(f"{root}: no images; wanted {NAMES} files, in any folders")
    chosen = np.random.default_rng(seed).permutation(len(found))[:most].tolist()
    return list_files(str(root), [(found[i], UNLABELLED, TRAIN) for i in chosen], ignored=ignored)


def class_folders(root: Path, known: Collection[str] = ()) -> tuple[str, ...]:
    """The names that `list_folder` would find, of the training part; nothing is opened. () where it would refuse."""
    try:
        folders = read_layout(root, known=known).folders
    except DataError:
        return ()
    trained = {folder.name for folder in folders if folder.part in ("", TRAIN)}
    return tuple(sorted(trained or {folder.name for folder in folders}))


def _training_trees(root: Path) -> list[Path]:
    """Where the images are that may be trained on, whatever their classes."""
    try:
        trees = read_layout(root).trees
    except DataError:  # of what the classes are
        names = parts_of(folder.name for folder in subfolders(root))
        trees = tuple((part, root / name) for name, part in names.items())
    trained = [tree for part, tree in trees if part in ("", TRAIN)]
    return trained or [root]


def _files(folder: Path, ignored: list[Ignored]) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if wrote(Path(here, name))]:
            ignored.append(Ignored(os.path.join(here, name), "was written by slimzoo"))
            folders.remove(name)
        for name in folders:
            if os.path.islink(os.path.join(here, name)):
                ignored.append(Ignored(os.path.join(here, name), "is a link to a folder"))
        for name in files:
            path = Path(here, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in EXTENSIONS:
                ignored.append(Ignored(str(path), f"{path.suffix.lower() or 'no extension'}"))
            elif path.is_file() or (path.is_symlink() and not path.exists()):
                yield path
            else:
                ignored.append(Ignored(str(path), "is not a file"))
