"""The report as a document: its sections, as JSON of a published form, and without the folders of whoever made it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.report.figures import Cell
from compress.report.parts import Section, Table
from zoo.files.directory import PARTIAL

SCHEMA = Path(__file__).with_name("report.schema.json")
VERSION = 1  # of the form


def document(report: Mapping[str, Any], parts: Sequence[Section]) -> dict[str, Any]:
    """What report.json holds, as report.schema.json describes it.

    Args:
        report: of `Report.to_json`.
    """
    kept = ("verdict", "baseline", "chosen", "budgets", "met")
    variants = [{name: value for name, value in variant.items() if name != "path"} for variant in report["variants"]]
    return {
        "schema": VERSION,
        **{name: report[name] for name in kept},
        "variants": variants,
        "sections": [_section(part) for part in parts],
    }


def located(parts: Sequence[Section], out: Path) -> list[Section]:
    """The sections with paths as from the folder that holds `out`; what lies elsewhere at home begins with ~."""
    work, home = out.resolve(), str(Path.home()) + os.sep
    places = {str(work) + os.sep: str(finished(work)) + os.sep} if finished(work) != work else {}
    places |= {str(work.parent) + os.sep: "", home: "~" + os.sep}

    def told(text: str) -> str:
        for place, instead in places.items():
            text = text.replace(place, instead) if len(place) > 1 else text
        return text

    def cell(one: Cell) -> Cell:
        return dataclasses.replace(one, text=told(one.text), notes=[told(note) for note in one.notes])

    def table(one: Table | None) -> Table | None:
        rows = None if one is None else [[cell(each) for each in row] for row in one.rows]
        return None if one is None or rows is None else dataclasses.replace(one, rows=rows)

    return [
        dataclasses.replace(
            part,
            text=[told(text) for text in part.text],
            table=table(part.table),
            code=[told(line) for line in part.code],
        )
        for part in parts
    ]


def finished(out: Path) -> Path:
    """The name that a directory in work will have."""
    return out.with_name(out.name.removesuffix(PARTIAL))


def _section(part: Section) -> dict[str, Any]:
    rows = [] if part.table is None else part.table.rows
    cells = [[{"text": cell.text, "notes": [note for note in cell.notes if note]} for cell in row] for row in rows]
    return {
        "title": part.title,
        "text": [text for text in part.text if text],
        "table": None if part.table is None else {"head": list(part.table.head), "rows": cells},
        "code": list(part.code),
        "picture": part.file,
    }
