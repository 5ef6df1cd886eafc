"""Tables of labelled images: CSV and Parquet with `path,label[,split]`, Parquet with the images inside.

Paths are taken from the table's own folder. Parquet needs pyarrow, which `pip install 'slimzoo[parquet]'` brings.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer.data.listing import PART_NAMES, Content, Item, Listing, Problem, list_files
from zoo.errors import DataError, UsageError
from zoo.image import load_image


def list_csv(path: Path) -> Listing:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error
    return _list_rows(path, columns, [(f"{path}, line {number}", row) for number, row in enumerate(rows, start=2)])


def list_parquet(path: Path) -> Listing:
    """With the columns `path,label[,split]`, or `image,label[,split]` as Hugging Face's `datasets` writes them.

    Such an image is a struct of `bytes` (the encoded file) and `path`; its label is a string, or the index of a name in
    the schema's metadata.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError(f"{path}: Parquet files need pyarrow; pip install 'slimzoo[parquet]'") from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as a Parquet file ({error})") from error
    columns = table.column_names
    if "path" not in columns and {"image", "label"} <= set(columns):
        return _list_images(path, table)
    wanted = [name for name in ("path", "label", "split") if name in columns]
    rows = table.select(wanted).to_pylist()
    return _list_rows(path, columns, [(f"{path}, row {number}", row) for number, row in enumerate(rows)])


def _list_rows(path: Path, columns: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Listing:
    missing = {"path", "label"} - set(columns)
    if missing:
        raise DataError(f"{path}: no column {' or '.join(sorted(missing))}; wanted path,label and, if you like, split")
    found, problems = [], []
    for where, row in rows:
        file, label, part = str(row.get("path") or ""), _text(row.get("label")), _text(row.get("split"))
        problem = _wrong_part(part)
        if not problem and (not file or not label):
            problem = f"path {file!r}, label {label!r}; wanted both"
        if problem:
            problems.append(Problem("row", where, f"{where}: {problem}"))
        else:
            found.append((path.parent / file, label, PART_NAMES.get(part.lower(), "")))
    problems += _half_split(path, [part for _, _, part in found])
    return list_files(str(path), found, problems=problems)


def _list_images(path: Path, table: Any) -> Listing:
    images, labels = table.column("image"), table.column("label").to_pylist()
    parts = table.column("split").to_pylist() if "split" in table.column_names else [None] * len(labels)
    names = _class_names(table.schema.metadata)
    items: list[Item] = []
    rows: list[int] = []  # of each item
    problems: list[Problem] = []
    for number, (label, split) in enumerate(zip(labels, parts, strict=True)):
        where, part = f"{path}, row {number}", _text(split)
        content = _image_bytes(images, number)
        problem = _wrong_part(part)
        if not problem and (content is None or not _text(label)):
            problem = f"image {'absent' if content is None else 'given'}, label {_text(label)!r}; wanted both"
        if problem or content is None:
            problems.append(Problem("row", where, f"{where}: {problem}"))
            continue
        class_name = names[label] if isinstance(label, int) and 0 <= label < len(names) else _text(label)
        digest = hashlib.sha256(content).hexdigest()
        items.append(Item(f"{path}/{number}", class_name, PART_NAMES.get(part.lower(), ""), digest))
        rows.append(number)
    problems += _half_split(path, [item.part for item in items])

    def content_of(index: int) -> Content:
        return _image_bytes(images, rows[index])

    def read(index: int) -> Any:
        content = _image_bytes(images, rows[index])
        assert content is not None
        return load_image(content)

    return Listing(name=str(path), items=tuple(items), read=read, content=content_of, problems=tuple(problems))


def _image_bytes(images: Any, row: int) -> bytes | None:
    value = images[row].as_py()
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else None


def _class_names(metadata: Mapping[bytes, bytes] | None) -> list[str]:
    """The names of an integer label, which `datasets` keeps as JSON in the schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _wrong_part(part: str) -> str:
    known = not part or part.lower() in PART_NAMES
    return "" if known else f"split {part!r}; wanted train, val or test"


def _half_split(path: Path, parts: Sequence[str]) -> list[Problem]:
    named = Counter(bool(part) for part in parts)
    if len(named) < 2:
        return []
    text = f"{path}: {named[False]} of {len(parts)} rows have no split; fill the column for all or for none"
    return [Problem("row", str(path), text)]
