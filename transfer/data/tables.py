"""Tables of labelled images: CSV and Parquet with `path,label[,split]`, Parquet with the images inside.

Paths are taken from the table's own folder; where nothing of it is there, from the current directory, or from the one
folder beside the table that has them. Parquet needs pyarrow, which `pip install 'slimzoo[parquet]'` brings.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transfer.data.columns import Columns, find_columns, text
from transfer.data.delimited import read_delimited
from transfer.data.image_files import has_image_name, subfolders
from transfer.data.listing import Content, Item, Listing, Problem, list_files
from transfer.data.part_names import WANTED
from zoo.errors import DataError, UsageError
from zoo.image import EXTENSIONS, load_image

LOOKED_AT = 50  # rows, to find the folder that the paths start from


def list_csv(path: Path) -> Listing:
    """List a CSV file, also with other delimiters, encodings and names of columns (delimited.py, columns.py)."""
    table = read_delimited(path)
    width = len(table.header)
    rows = [(f"{path}, line {number}", cells + [""] * (width - len(cells))) for number, cells in table.rows]
    columns = find_columns(str(path), table.header, [row for _, row in rows], has_names=table.has_names)
    listing = _list_rows(path, columns, [(where, row) for where, row in rows if len(row) == width])
    problems = [
        Problem(
            "row", where, f"{where}: {len(row)} cells, where there are {width} columns; quote what holds a delimiter"
        )
        for where, row in rows
        if len(row) > width
    ]
    return replace(listing, notes=table.notes + listing.notes, problems=(*problems, *listing.problems))


def list_parquet(path: Path) -> Listing:
    """List a Parquet file with a CSV file's columns, or with images as Hugging Face's `datasets` writes them.

    Such an image is a struct of `bytes` (the encoded file) and `path`; its label is a string, or the index of a name in
    the schema's metadata.
    """
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError as error:
        raise UsageError(f"{path}: Parquet files need pyarrow; pip install 'slimzoo[parquet]'") from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as a Parquet file ({error})") from error
    encoded = [i for i, kind in enumerate(table.schema.types) if types.is_struct(kind) or types.is_binary(kind)]
    others = [name for i, name in enumerate(table.column_names) if i not in encoded]
    cells = table.select(others).to_pydict()
    rows = list(zip(*(cells[name] for name in others), strict=True)) if others else []
    if encoded:
        # the images' own column stands first, empty: what is in it is read one by one
        rows = [("", *row) for row in rows] or [("",)] * table.num_rows
        columns = find_columns(str(path), [table.column_names[encoded[0]], *others], rows, path=0)
        return _list_images(path, table, encoded[0], columns, rows)
    columns = find_columns(str(path), others, rows)
    return _list_rows(path, columns, [(f"{path}, row {number}", row) for number, row in enumerate(rows)])


def _list_rows(path: Path, columns: Columns, rows: Sequence[tuple[str, Sequence[Any]]]) -> Listing:
    files: list[tuple[str, str, str]] = []
    problems: list[Problem] = []
    strange: list[Problem] = []
    for where, row in rows:
        file, label = text(row[columns.path]), columns.class_name(row)
        part, wrong = columns.part(row)
        if not file or not label:
            problems.append(Problem("row", where, f"{where}: path {file!r}, label {label!r}; wanted both"))
            continue
        if wrong:
            strange.append(Problem("split", where, f"{where}: split {wrong!r}; wanted {WANTED}"))
        folder = "" if columns.folder is None else text(row[columns.folder])
        files.append((os.path.join(folder, file), label, part))
    problems += [*strange, *_half_split(path, Counter(bool(part) for _, _, part in files), len(strange))]
    base, note = _base(path, [file for file, _, _ in files])
    found = [(_place(base, file) or base / file, label, part) for file, label, part in files]
    notes = tuple(line for line in (columns.note, note) if line)
    return replace(list_files(str(path), found, problems=problems), notes=notes)


def _base(path: Path, files: Sequence[str]) -> tuple[Path, str]:
    """The folder that paths start from, and a line about it where it is not the table's own.

    Raises:
        DataError: two folders beside the table have the files.
    """
    some = files[:LOOKED_AT]

    def there(base: Path) -> int:
        return sum(_place(base, file) is not None for file in some)

    own = there(path.parent)
    if own or not some:
        return path.parent, ""
    here = Path()
    if there(here):
        return here, f"{path}: paths are taken from the current directory, for they are not beside the table"
    beside = [folder for folder in subfolders(path.parent) if there(folder)]
    if len(beside) > 1:
        names = " and ".join(f"{folder.name}/" for folder in beside)
        raise DataError(f"{path}: {some[0]} is in {names} beside it; write the folder into the paths")
    if beside:
        return beside[0], f"{path}: paths are taken from {beside[0].name}/ beside it"
    return path.parent, ""


def _place(base: Path, file: str) -> Path | None:
    """The file of that name below `base`: as it stands, with Windows's separators, or without its extension."""
    for name in dict.fromkeys((file, file.replace("\\", "/"))):
        if os.path.lexists(base / name) and not (base / name).is_dir():
            return base / name
        if not has_image_name(name):
            for extension in sorted(EXTENSIONS):
                if os.path.lexists(base / (name + extension)):
                    return base / (name + extension)
    return None


def _list_images(path: Path, table: Any, column: int, columns: Columns, rows: Sequence[Sequence[Any]]) -> Listing:
    images = table.column(column)
    others = [name for i, name in enumerate(table.column_names) if i != column]
    names = [] if columns.label is None else _class_names(table.schema.metadata, others[columns.label - 1])
    items: list[Item] = []
    kept: list[int] = []  # row of each item
    problems: list[Problem] = []
    strange: list[Problem] = []
    for number, row in enumerate(rows):
        where = f"{path}, row {number}"
        content, label = _image_bytes(images, number), columns.class_name(row)
        part, wrong = columns.part(row)
        if content is None or not label:
            problem = f"image {'absent' if content is None else 'given'}, label {label!r}; wanted both"
            problems.append(Problem("row", where, f"{where}: {problem}"))
            continue
        if wrong:
            strange.append(Problem("split", where, f"{where}: split {wrong!r}; wanted {WANTED}"))
        number_of_name = row[columns.label] if columns.label is not None else None
        if isinstance(number_of_name, int) and 0 <= number_of_name < len(names):
            label = names[number_of_name]
        items.append(Item(f"{path}/{number}", label, part, hashlib.sha256(content).hexdigest()))
        kept.append(number)
    problems += [*strange, *_half_split(path, Counter(bool(item.part) for item in items), len(strange))]

    def content_of(index: int) -> Content:
        return _image_bytes(images, kept[index])

    def read(index: int, least: tuple[int, int] | None = None) -> Any:
        content = _image_bytes(images, kept[index])
        assert content is not None
        return load_image(content, least=least)

    notes = (columns.note,) if columns.note else ()
    return Listing(
        name=str(path), items=tuple(items), read=read, content=content_of, problems=tuple(problems), notes=notes
    )


def _image_bytes(images: Any, row: int) -> bytes | None:
    value = images[row].as_py()
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else None


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str) -> list[str]:
    """The names of an integer label, which `datasets` keeps as JSON in the schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _half_split(path: Path, named: Counter[bool], strange: int) -> list[Problem]:
    """A problem where some rows have a part and others are silent; `strange` of these say something else."""
    silent = named[False] - strange
    if not silent or not named[True]:
        return []
    count = silent + named[True]
    message = f"{path}: {silent} of {count} rows have no split; fill the column for all or for none"
    return [Problem("split", str(path), message)]
