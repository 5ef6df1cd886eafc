"""Image folders: one folder a class, or train/ val/ test/ of those.

- A class folder is searched to any depth, as transfer/data/image_files.py says.
- A class folder may be a link, but for one that leads to a folder which holds it: it is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transfer.data.image_files import MADE_BY_SYSTEM, NAMES, image_files, is_system_folder
from transfer.data.listing import PART_NAMES, Ignored, Listing, Problem, list_files
from transfer.data.split import TRAIN
from zoo.class_name import as_class_name
from zoo.errors import DataError

UNLABELLED = "unlabelled"


def list_folder(root: Path) -> Listing:
    """Raises DataError where there is no image at all."""
    found: list[tuple[Path, str, str]] = []
    problems: list[Problem] = []
    ignored: list[Ignored] = []
    for part, tree in _trees(root, ignored):
        for folder in _folders(tree, ignored):
            files = sorted(image_files(folder, ignored))
            if not files:
                text = f"{folder}: a class without images ({NAMES}); fill it or remove it"
                problems.append(Problem("empty class", str(folder), text))
            found += [(path, folder.name, part) for path in files]
    if not found and not problems:
        raise DataError(
            f"{root}: no images; wanted one folder a class with {NAMES} files inside, such as {root / 'cat' / '1.jpg'}"
        )
    return list_files(str(root), found, problems=problems, ignored=ignored)


def list_images(root: Path, *, most: int, seed: int) -> Listing:
    """Images below a folder, at any depth, as of one class; of train/ alone where there is one.

    Args:
        most: how many; by chance, by `seed`, where there are more, and no others are opened.

    Raises DataError where there is no image at all.
    """
    ignored: list[Ignored] = []
    trees = _trees(root, ignored)
    found = [
        path for part, tree in trees if part in ("", TRAIN) for path in sorted(image_files(tree, ignored))
    ]  # fmt: skip
    if not found:
        raise DataError(f"{root}: no images; wanted {NAMES} files, in any folders")
    chosen = np.random.default_rng(seed).permutation(len(found))[:most].tolist()
    return list_files(str(root), [(found[i], UNLABELLED, TRAIN) for i in chosen], ignored=ignored)


def class_folders(root: Path) -> tuple[str, ...]:
    """The names that `list_folder` would find, of the training part; nothing is opened."""
    trees = [tree for part, tree in _trees(root, []) if part in ("", TRAIN)]
    return tuple(sorted({as_class_name(folder.name) for tree in trees for folder in _folders(tree, [])}))


def _trees(root: Path, ignored: list[Ignored]) -> list[tuple[str, Path]]:
    """(part, folder of classes); one tree without a part where there is no folder "train"."""
    parts = [child for child in _visible(root) if child.name.lower() in PART_NAMES and child.is_dir()]
    if not any(PART_NAMES[child.name.lower()] == "train" for child in parts):
        return [("", root)]
    others = [child for child in _visible(root) if child not in parts]
    ignored += [Ignored(str(child), "stands beside train/") for child in others]
    return [(PART_NAMES[child.name.lower()], child) for child in parts]


def _folders(tree: Path, ignored: list[Ignored]) -> Iterator[Path]:
    home = tree.resolve()
    for child in _visible(tree):
        if not child.is_dir():
            ignored.append(Ignored(str(child), "is not in the folder of a class"))
        elif is_system_folder(child.name):
            ignored.append(Ignored(str(child), MADE_BY_SYSTEM))
        elif child.is_symlink() and child.resolve() in (home, *home.parents):
            ignored.append(Ignored(str(child), "is a link to a folder that holds it"))
        else:
            yield child


def _visible(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))
