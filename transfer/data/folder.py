"""Image folders: one folder a class, or train/ val/ test/ of those; `transfer.data.layout` says which.

A class folder is searched to any depth, as transfer/data/image_files.py says.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.image_files import NAMES, image_files, is_image, subfolders, visible
from transfer.data.layout import read_layout
from transfer.data.left_out import left_out
from transfer.data.listing import Ignored, Listing, Problem, list_files
from transfer.data.part_names import parts_of
from transfer.data.split import TRAIN
from zoo.errors import DataError

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
        before = len(ignored)
        files = sorted(image_files(folder.path, ignored))
        if not files:
            others = "".join(f"; {line}" for kind in left_out(ignored[before:]) for line in kind.describe())
            text = f"{folder.path}: a class without images ({NAMES}); fill it or remove it{others}"
            problems.append(Problem("empty class", str(folder.path), text))
        found += [(path, folder.name, folder.part) for path in files]
    if not found and not problems:
        raise DataError(_without_classes(root))
    notes = (read.said, *filter(None, (read.left,)), *(f"warning: {doubt}" for doubt in read.doubts))
    return replace(list_files(str(root), found, problems=problems, ignored=ignored), notes=notes)


def _without_classes(root: Path) -> str:
    """What is said of a folder in which there is no class."""
    children = visible(root)
    plain = sum(is_image(child) for child in children)
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
    found = [path for tree in _training_trees(root) for path in sorted(image_files(tree, ignored))]
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
