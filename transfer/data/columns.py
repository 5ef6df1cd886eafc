"""Which column of a table holds the images, which the labels, which the parts: by the names that people give them, and
by what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from transfer.data.image_files import has_image_name
from transfer.data.part_names import part_of
from transfer.data.split import TEST, TRAIN, VAL
from zoo.errors import DataError

# by preference; compared without case, blanks and punctuation
PATHS = tuple(
    (
        "path paths filepath filepaths imagepath imagepaths imgpath file files filename filenames imagefile "
        "imagefilename imagename imgname image images img photo picture imageid imgid fileid id"
    ).split()
)
LABELS = tuple(
    (
        "labelname classname categoryname label labels class classes category categories target targets tag species "
        "breed cls y classid labelid categoryid"
    ).split()
)
SPLITS = ("split", "part", "subset", "partition", "set", "dataset", "datasplit", "usage", "phase")
FOLDERS = ("folder", "dir", "directory", "subfolder", "imagefolder", "imagedir", "root")
FLAGS = {"isvalid": VAL, "isval": VAL, "isvalidation": VAL, "istest": TEST, "istrain": TRAIN}
TRUE, FALSE = {"true", "1", "1.0", "yes"}, {"false", "0", "0.0", "no", ""}
LOOKED_AT = 50  # rows


@dataclass(frozen=True)
class Columns:
    """Positions in a row.

    Attributes:
        path, label: of the image's file and of its class; `label` is None where `one_hot` has it.
        split, folder: None where there is no such column.
        flags: (position, part) of columns of true and false, such as `is_valid`.
        one_hot: (position, class) of columns of which one is 1 in each row.
        note: what was taken for what; "" where the columns are called path, label and split.
    """

    path: int
    label: int | None
    split: int | None = None
    folder: int | None = None
    flags: tuple[tuple[int, str], ...] = ()
    one_hot: tuple[tuple[int, str], ...] = ()
    note: str = ""

    def class_name(self, row: Sequence[Any]) -> str:
        if self.label is not None:
            return text(row[self.label])
        chosen = [name for position, name in self.one_hot if text(row[position]) in TRUE]
        return chosen[0] if len(chosen) == 1 else ""

    def part(self, row: Sequence[Any]) -> tuple[str, str]:
        """The row's part, and what it says where that is no part ("" else)."""
        given = "" if self.split is None else text(row[self.split])
        if given or not self.flags:
            part = part_of(given)
            return part, "" if part or not given else given
        for position, part in self.flags:
            if text(row[position]).lower() in TRUE:
                return part, ""
        return (TRAIN if all(part != TRAIN for _, part in self.flags) else ""), ""


def text(value: object) -> str:
    return "" if value is None else str(value).strip()


def is_header(row: Sequence[str]) -> bool:
    """Whether it names columns: it does not where it names an image."""
    return not any(has_image_name(cell.strip()) for cell in row)


def names_both(row: Sequence[str]) -> bool:
    """Whether it names a column of images and one of labels."""
    plain = {_plain(name) for name in row}
    return bool(plain & set(PATHS)) and bool(plain & set(LABELS))


def find_columns(
    table: str, header: Sequence[str], rows: Sequence[Sequence[Any]], *, has_names: bool = True, path: int | None = None
) -> Columns:
    """Args:
        table: names it in messages.
        rows: as long as the header each.
        has_names: whether the header was in the table.
        path: the column of the images, where it is known.

    Raises:
        DataError: no column of images, or none of labels, or several that could be.
    """
    names = [_plain(name) for name in header]
    values = [[text(row[i]) for row in islice(rows, LOOKED_AT)] for i in range(len(header))]
    path = _path_column(names, values) if path is None else path
    split = _split_column(names, values, has_names)
    folder = _first(names, FOLDERS, {path, split})
    flags = tuple(
        (i, FLAGS[name])
        for i, name in enumerate(names)
        if name in FLAGS and set(map(str.lower, values[i])) <= TRUE | FALSE
    )
    used = {path, split, folder, *(i for i, _ in flags)}
    label = _first(names, LABELS, used)
    rest = [i for i, name in enumerate(names) if i not in used and (name or any(values[i]))]
    one_hot: tuple[tuple[int, str], ...] = ()
    if label is None and len(rest) == 1:
        label = rest[0]
    elif label is None and path is not None and _is_one_hot(rest, values):
        one_hot = tuple((i, header[i].strip()) for i in rest)
    if path is None or (label is None and not one_hot):
        missing = [name for name, found in (("path", path), ("label", label)) if found is None]
        found = ", ".join(repr(name) for name in header) if has_names else f"{len(header)} columns without names"
        lacks = " or ".join(missing)
        raise DataError(f"{table}: no column {lacks}; wanted path,label and, if you like, split; found {found}")
    note = _note(table, header, path, label, split, has_names)
    return Columns(path, label, split, folder, flags, one_hot, note)


def _path_column(names: Sequence[str], values: Sequence[Sequence[str]]) -> int | None:
    of_images = [i for i, column in enumerate(values) if any(column) and all(has_image_name(v) for v in column if v)]
    named = [names.index(name) for name in PATHS if name in names]
    both = [i for i in named if i in of_images]
    return next(iter([*both, *(of_images if len(of_images) == 1 else []), *named]), None)


def _split_column(names: Sequence[str], values: Sequence[Sequence[str]], has_names: bool) -> int | None:
    for name in SPLITS:
        if name in names:
            column = values[names.index(name)]
            if name == "split" or (any(column) and all(part_of(v) for v in column if v)):
                return names.index(name)
    if has_names:
        return None
    of_parts = [i for i, column in enumerate(values) if any(column) and all(part_of(v) for v in column)]
    return of_parts[0] if of_parts and len(names) > 2 else None


def _first(names: Sequence[str], wanted: Sequence[str], used: set[int | None]) -> int | None:
    return next((names.index(name) for name in wanted if name in names and names.index(name) not in used), None)


def _is_one_hot(rest: Sequence[int], values: Sequence[Sequence[str]]) -> bool:
    if len(rest) < 2:
        return False
    rows = list(zip(*(values[i] for i in rest), strict=True))
    return bool(rows) and all(
        set(row) <= TRUE | FALSE and sum(cell in TRUE for cell in row) == 1 and "" not in row for row in rows
    )


def _note(table: str, header: Sequence[str], path: int, label: int | None, split: int | None, has_names: bool) -> str:
    usual = {path: "path", label: "label", split: "split"}
    if has_names and all(i is None or header[i] == name for i, name in usual.items()):
        return ""

    def column(i: int) -> str:
        return f"column {header[i].strip()!r}" if has_names else f"column {i + 1}"

    labels = "the column that is 1" if label is None else column(label)
    parts = "" if split is None else f", parts by {column(split)}"
    return f"{table}: images by {column(path)}, labels by {labels}{parts}{'' if has_names else '; it has no header'}"


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
