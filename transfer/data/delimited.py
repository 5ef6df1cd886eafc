"""Delimited text as people's programs write it: encodings, delimiters, a header or none, Excel's `sep=` line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from transfer.data.columns import is_header, names_both
from zoo.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .xls
TRIED = 50  # rows, to find the delimiter


@dataclass(frozen=True)
class Delimited:
    """A table of text.

    Attributes:
        header: names of the columns; "column 1" and so on where the file has none.
        has_names: whether the file has a header.
        rows: (line number, cells), those without any content left out; not necessarily as long as the header.
        notes: lines for a person.
    """

    header: tuple[str, ...]
    has_names: bool
    rows: tuple[tuple[int, list[str]], ...]
    notes: tuple[str, ...] = ()


def read_delimited(path: Path) -> Delimited:
    """Raises DataError where it is no text, or empty."""
    words, notes = _decoded(path)
    lines = io.StringIO(words, newline="")
    said = re.match(r"sep=(.)\r?\n", words, re.IGNORECASE)
    if said:  # Excel's own way to say it
        lines.readline()
        words = words[said.end() :]
    delimiter = said[1] if said else _delimiter(words, spaces=path.suffix.lower() == ".txt")
    try:
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        rows = [(reader.line_num + bool(said), row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a CSV file ({error})") from error
    rows = [(number, _trimmed(row)) for number, row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise DataError(f"{path}: no images; it is empty, and wanted is a line path,label and one for each image")
    if is_header(rows[0][1]):
        return Delimited(tuple(cell.strip() for cell in rows[0][1]), True, tuple(rows[1:]), notes)
    width = Counter(len(row) for _, row in rows).most_common(1)[0][0]
    return Delimited(tuple(f"column {i + 1}" for i in range(width)), False, tuple(rows), notes)


def _decoded(path: Path) -> tuple[str, tuple[str, ...]]:
    raw = path.read_bytes()
    if raw.startswith(WORKBOOKS):
        raise DataError(f"{path}: an Excel workbook and no CSV file; save it as CSV")
    encoding = next((name for mark, name in BOMS if raw.startswith(mark)), "")
    if not encoding and b"\0" in raw[:4096]:  # of Latin text every other byte is 0
        encoding = "utf-16-le" if raw[1:4096:2].count(0) > raw[0:4096:2].count(0) else "utf-16-be"
    try:
        return raw.decode(encoding or "utf-8"), ()
    except UnicodeDecodeError as error:
        if encoding:
            raise DataError(
                f"{path}: cannot be read as text in {encoding} ({error.reason}); save it as UTF-8"
            ) from error
    try:
        words = raw.decode("cp1252")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: text neither in UTF-8 nor in Windows's cp1252; save it as UTF-8") from error
    odd = next(word for word in re.split(r"[,;\t\r\n]", words) if not word.isascii())
    note = (
        f"warning: {path} is not in UTF-8 and was read as cp1252, such as {odd!r}; if that is wrong, save it as UTF-8"
    )
    return words, (note,)


def _delimiter(words: str, *, spaces: bool) -> str:
    """The one by which the header names what is wanted, else by which the most rows have as many cells as the first."""
    best, most = DELIMITERS[0], 0
    for delimiter in (*DELIMITERS, " ") if spaces else DELIMITERS:
        rows = _first_rows(words, delimiter)
        if rows and len(rows[0]) > 1 and names_both(rows[0]):
            return delimiter
        alike = sum(len(row) == len(rows[0]) for row in rows) if rows and len(rows[0]) > 1 else 0
        if alike > most:
            best, most = delimiter, alike
    return best


def _first_rows(words: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(words[: 1 << 16], newline=""), delimiter=delimiter, skipinitialspace=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(_trimmed(row))
            if len(rows) == TRIED:
                break
    except csv.Error:
        return []
    return rows


def _trimmed(row: list[str]) -> list[str]:
    """Without the empty cells that a comma at the end of a line makes."""
    last = max((i for i, cell in enumerate(row) if cell.strip()), default=-1)
    return row[: last + 1]
