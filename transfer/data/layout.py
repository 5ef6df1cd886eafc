"""What the folders of an image folder are: classes, or the parts train, val and test with the classes inside.

Names and structure decide together, and what was decided is said:

- Folders named as parts that hold folders are parts: two of them, or one that stands alone or beside the same classes.
  A folder with images directly inside is a class whatever its name, as `train` is beside `bus` and `car`.
- Folders that hold nothing but folders named as parts are classes, each divided: `cat/train`, `cat/test`.
- A single folder around the others is looked into: `photos/photos/cat`.
- Where siblings hold the same names, as `indoor/cat` and `outdoor/cat`, either could be the classes: refused. So is a
  part with images and no classes.

`--layout classes` takes the folders of DATA as classes, whatever they are; `--layout parts` never does: those named as
parts are parts, and where none is, the images of all are one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from transfer.data.image_files import (
    LOOP,
    MADE_BY_SYSTEM,
    has_images,
    holds_only_output,
    subfolders,
    visible,
    why_no_data,
)
from transfer.data.listing import Ignored
from transfer.data.options import LayoutName
from transfer.data.part_names import parts_of
from transfer.data.split import TEST, TRAIN, VAL
from zoo.class_name import as_class_name
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.files.directory import wrote

ORDER = (TRAIN, VAL, TEST, "")
# which stand beside parts and are none
BESIDE = set(
    (
        "unlabeled unlabelled unsupervised extra pred prediction predictions sample samples mask masks label labels "
        "annotations raw"
    ).split()
)


@dataclass(frozen=True)
class ClassFolder:
    """A folder whose images, at any depth, are of one class; `part` is "" where that is open."""

    part: str
    name: str
    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", as_class_name(self.name))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an image folder is read.

    Attributes:
        folders: of the classes, by part and name.
        trees: (part, folder): the parts, for those who ask for images alone.
        said: one line for a person.
        doubts: lines of what could have been meant otherwise.
        ignored: what is there and not looked into.
        left: one line on what slimzoo wrote there itself, which is never data; "" if nothing.
    """

    folders: tuple[ClassFolder, ...]
    trees: tuple[tuple[str, Path], ...]
    said: str
    doubts: tuple[str, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    left: str = ""


def checked_layout(name: str) -> LayoutName:
    """The layout of that name.

    Raises:
        UsageError: there is none.
    """
    for known in get_args(LayoutName):
        if known == name:
            return known  # type: ignore[no-any-return]
    known_names = get_args(LayoutName)
    raise UsageError(f"unknown layout {name!r}: {did_you_mean(name, known_names, ', '.join(known_names))}")


def read_layout(root: Path, wanted: str = "auto", known: Collection[str] = ()) -> Layout:
    """Read an image folder.

    Args:
        wanted: see the top of this file.
        known: the classes of a model that is to see these images; where the folders are named as they are, no doubt
            is left.

    Raises:
        UsageError: an unknown layout.
        DataError: slimzoo wrote the folder itself; two readings are as good as each other; parts without classes.
    """
    wanted = checked_layout(wanted)
    if wrote(root):
        raise DataError(f"{root} is what slimzoo wrote, and no dataset: name the folder of the images")
    tops = _tops(root)
    if wanted == "classes" or (wanted == "auto" and tops and _names(tops) <= set(known)):
        found = _as_classes(root, root, tops)
    else:
        found = _read(root, root, tops, wanted, known)
    written = [child for child in visible(root) if child.is_dir() and (wrote(child) or holds_only_output(child))]
    if written:
        names = named(child.name for child in written)
        were = "was" if len(written) == 1 else "were"
        found = replace(found, left=f"{root}: {names} {were} written by slimzoo and {were} left out")
    return found


def named(names: Iterable[str]) -> str:
    """ "a/, b/ and c/", of more than four the first three and how many more."""
    listed = [f"{name}/" for name in names]
    if len(listed) > 4:
        listed = [*listed[:3], f"{len(listed) - 3} more"]
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def _tops(folder: Path) -> list[Path]:
    return [child for child in subfolders(folder) if not holds_only_output(child)]


def _read(root: Path, here: Path, tops: list[Path], wanted: str, known: Collection[str]) -> Layout:
    full = [top for top in tops if has_images(top)]
    parts = _parts(root, here, tops, full, wanted, known)
    if parts is not None:
        return parts
    if inner := _only_folder(here, tops, full):
        deeper = _read(root, inner, _tops(inner), wanted, known)
        if len({folder.name for folder in deeper.folders}) > 1 or any(part for part, _ in deeper.trees):
            beside = _beside(here, [inner], f"stands beside {inner.name}/")
            return replace(deeper, ignored=(*beside, *deeper.ignored))
    if wanted == "parts":
        return _pooled(root, here, full)
    _refuse_unlabelled(here, full)
    shared = _shared(full)
    if shared and known and _names_inside(full) <= set(known):
        return _pooled(root, here, full)
    if shared:
        one, other, names = shared
        raise DataError(
            f"{root}: {one.name}/ and {other.name}/ hold the same folders ({_few(names)}), so either could be the "
            f"classes: say --layout parts for {_few(_names_inside(full))}, or --layout classes for "
            f"{_few([top.name for top in full])}"
        )
    return _as_classes(root, here, tops)


def _parts(
    root: Path, here: Path, tops: list[Path], full: list[Path], wanted: str, known: Collection[str]
) -> Layout | None:
    """The folder read as parts with classes inside, or classes with parts inside; None if it is neither."""
    meant = parts_of(top.name for top in tops)
    candidates = [top for top in tops if top.name in meant and subfolders(top)]
    others = [top for top in full if top.name not in meant]
    if candidates and (wanted == "parts" or _stand_as_parts(root, candidates, others, meant)):
        return _as_parts(root, here, {top: meant[top.name] for top in candidates}, full, meant)
    deep = [top for top in full if not has_images(top, below=False)]
    inside = {top: parts_of(sub.name for sub in _holding(top)) for top in deep}
    divided = (
        len(full) > 1 and deep == full and all(inside[top] and len(inside[top]) == len(_holding(top)) for top in full)
    )
    return _as_divided_classes(root, here, tops, inside) if divided else None


def _stand_as_parts(root: Path, candidates: list[Path], others: list[Path], meant: dict[str, str]) -> bool:
    """Whether folders that are named as parts and hold folders are parts, and not classes beside the others.

    Raises:
        DataError: that cannot be told.
    """
    others = [other for other in others if other.name.lower() not in BESIDE]
    if len({meant[top.name] for top in candidates}) > 1 or not others:
        return True
    names = _names_inside(candidates)
    if names & _names_inside(others):
        return True
    if len(others) == 1 and has_images(others[0], below=False):
        one = candidates[0].name
        raise DataError(
            f"{root}: {one}/ could be a part with the classes {_few(names)}, or a class beside {others[0].name}/: "
            "say --layout parts, or --layout classes"
        )
    return False


def _as_parts(root: Path, here: Path, parts: dict[Path, str], full: list[Path], meant: Collection[str]) -> Layout:
    first = min(parts, key=lambda top: ORDER.index(parts[top]))
    ignored = _beside(here, parts, f"stands beside {first.name}/")
    doubts = [
        f"{root}: {top.name}/ holds images and no folders of classes, so they have no labels and are left out"
        if top.name in meant
        else f"{root}: {top.name}/ stands beside {first.name}/ and is left out; --layout classes takes all as classes"
        for top in full
        if top not in parts
    ]
    trees, folders = [], []
    inside = {top: _holding(top) for top in parts}
    for top, part in sorted(parts.items(), key=lambda found: found[0].name):
        others = [inside[other] for other in parts if other != top and len(inside[other]) > 1]
        elsewhere = {name for folders_there in others for name in _names(folders_there)}
        tree = _innermost(top, elsewhere)
        trees.append((part, tree))
        folders += [ClassFolder(part, sub.name, sub) for sub in subfolders(tree)]
        ignored += _plain_files(tree, "is not in the folder of a class")
    names = {folder.name for folder in folders}
    ordered = sorted(parts, key=lambda top: (ORDER.index(parts[top]), top.name))
    plain = all(top.name.lower() == part for top, part in parts.items())
    means = "" if plain else f" ({', '.join(parts[top] for top in ordered)})"
    is_part = "are parts" if len(parts) > 1 else "is a part"
    where = [top.relative_to(root).as_posix() for top in ordered]
    said = f"{root}: {named(where)} {is_part}{means}, {_counted(names)}"
    return Layout(folders=tuple(folders), trees=tuple(trees), said=said, doubts=tuple(doubts), ignored=tuple(ignored))


def _as_divided_classes(root: Path, here: Path, tops: list[Path], inside: dict[Path, dict[str, str]]) -> Layout:
    folders = [ClassFolder(part, top.name, top / name) for top, parts in inside.items() for name, part in parts.items()]
    folders += [ClassFolder("", top.name, top) for top in tops if top not in inside]  # without images: a problem
    words = {name for parts in inside.values() for name in parts}
    said = f"{root}: {named(sorted(words))} inside each class are parts, {_counted(inside)}"
    ignored = [entry for top in inside for entry in _plain_files(top, "stands beside the parts of a class")]
    ignored += _plain_files(here, "is not in the folder of a class")
    trees = tuple((folder.part, folder.path) for folder in folders)
    return Layout(folders=tuple(folders), trees=trees, said=said, ignored=tuple(ignored))


def _as_classes(root: Path, here: Path, tops: list[Path]) -> Layout:
    place = "" if here == root else f", in {here.relative_to(root).as_posix()}/"
    said = f"{root}: {named([top.name for top in tops])} {'are classes' if len(tops) != 1 else 'is a class'}{place}"
    folders = tuple(ClassFolder("", top.name, top) for top in tops)
    doubts = [
        f"{root}: {top.name}/ is taken for a class by its place; if it is none, move it, or say --layout parts"
        for top in tops
        if (top.name in parts_of([top.name]) and subfolders(top)) or top.name.lower() in BESIDE
    ]
    ignored = tuple(_plain_files(here, "is not in the folder of a class"))
    return Layout(folders=folders, trees=(("", here),), said=said, doubts=tuple(doubts), ignored=ignored)


def _pooled(root: Path, here: Path, full: list[Path]) -> Layout:
    """The images of all folders as one set, its classes one level down."""
    folders = tuple(ClassFolder("", sub.name, sub) for top in full for sub in subfolders(top))
    if not folders:
        raise DataError(
            f"{root}: no folders of classes in {named([t.name for t in full]) if full else 'it'}; wanted "
            "train/cat/1.jpg for --layout parts"
        )
    names = {folder.name for folder in folders}
    said = f"{root}: {named([top.name for top in full])} hold the same classes and are read as one, {_counted(names)}"
    ignored = [entry for top in full for entry in _plain_files(top, "is not in the folder of a class")]
    return Layout(folders=folders, trees=tuple(("", top) for top in full), said=said, ignored=tuple(ignored))


def _refuse_unlabelled(here: Path, full: list[Path]) -> None:
    """Raises DataError where folders with images inside are named as parts, and not as one class of several may be."""
    meant = parts_of(top.name for top in full)
    distinct = len(set(meant.values()))
    if not meant or (distinct == 1 and len(meant) < len(full)):
        return
    names = named(sorted(meant))
    raise DataError(
        f"{here}: {names} {'are parts' if len(meant) > 1 else 'is a part'} by name, and there are no folders of "
        f"classes inside; wanted {next(iter(meant))}/cat/1.jpg, or a CSV file with path,label,split; if these are the "
        "classes, say --layout classes"
    )


def _shared(full: list[Path]) -> tuple[Path, Path, list[str]] | None:
    """Two folders that hold folders of the same names, at least half of the smaller one's; not one folder each."""
    held = [(top, _names(_holding(top))) for top in full if not has_images(top, below=False)]
    for i, (one, names) in enumerate(held):
        for other, theirs in held[:i]:
            both, least = names & theirs, min(len(names), len(theirs))
            if max(len(names), len(theirs)) > 1 and both and (len(both) > 1 or 2 * len(both) >= least):
                return other, one, sorted(both)
    return None


def _only_folder(here: Path, tops: list[Path], full: list[Path]) -> Path | None:
    """The one folder in which all images are, where the others are no classes that wait for theirs."""
    if len(full) != 1 or has_images(here, below=False) or has_images(full[0], below=False):
        return None
    others = [top for top in tops if top not in full]
    return full[0] if all(any(visible(other)) for other in others) else None


def _innermost(tree: Path, elsewhere: set[str]) -> Path:
    """Find the folder of a part that holds the classes, with others around it: train/images/, seg_train/seg_train/."""
    while (only := _only_folder(tree, subfolders(tree), _holding(tree))) and as_class_name(only.name) not in elsewhere:
        tree = only
    return tree


def _holding(folder: Path) -> list[Path]:
    return [sub for sub in subfolders(folder) if has_images(sub)]


def _names_inside(tops: Collection[Path]) -> set[str]:
    return {name for top in tops for name in _names(_holding(top))}


def _names(folders: Iterable[Path]) -> set[str]:
    return {as_class_name(folder.name) for folder in folders}


def _beside(here: Path, taken: Collection[Path], why: str) -> list[Ignored]:
    return [
        Ignored(str(child), why)
        for child in visible(here)
        if child not in taken and not (child.is_dir() and (wrote(child) or holds_only_output(child)))
    ]


def _plain_files(folder: Path, why: str) -> list[Ignored]:
    found = []
    for child in visible(folder):
        if not child.is_dir():
            found.append(Ignored(str(child), why))
        elif (kind := why_no_data(child)) in (LOOP, MADE_BY_SYSTEM):
            found.append(Ignored(str(child), kind))
    return found


def _few(names: Collection[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:4]) + (", ..." if len(ordered) > 4 else "")


def _counted(names: Collection[object]) -> str:
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}"
