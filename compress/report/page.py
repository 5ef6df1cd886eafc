"""Sections as a page: HTML that needs no other file, and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.report.charts import to_svg
from compress.report.figures import Cell
from compress.report.gallery import picture_uri
from compress.report.parts import Section, Table

TEMPLATE = Path(__file__).with_name("page.html.j2")


def html(title: str, verdict: str, parts: Sequence[Section], *, again_s: int | None = None) -> str:
    """
    Args:
        again_s: seconds after which a browser reads it again; None where it is finished.
    """
    import jinja2
    import markupsafe

    def code(text: str) -> markupsafe.Markup:
        """Escaped, with `names` as <code>."""
        pieces = text.split("`")
        return markupsafe.Markup("").join(
            markupsafe.Markup("<code>{}</code>").format(piece) if i % 2 else markupsafe.escape(piece)
            for i, piece in enumerate(pieces)
        )

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = code
    environment.filters["uri"] = picture_uri
    environment.filters["svg"] = lambda picture: markupsafe.Markup(to_svg(picture.chart))
    halves = sum(part.picture is not None for part in parts) > 1  # side by side, where there is room
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    joined = max((len(part.table.rows) for part in parts if part.table and part.table.joined), default=0)
    return template.render(title=title, verdict=verdict, sections=parts, halves=halves, joined=joined, again_s=again_s)


def markdown(title: str, verdict: str, parts: Sequence[Section]) -> str:
    lines = [f"# {_plain(title)}", "", f"**{_plain(verdict)}**", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        if part.file:
            lines += [f"![{part.title}]({part.file})", ""]
        for paragraph in filter(None, part.text):
            lines += [_plain(paragraph), ""]
        if part.table is not None:
            lines += [*_table(part.table), ""]
        if part.code:
            lines += ["```sh", *part.code, "```", ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    ruler = ["---" if i < table.words else "---:" for i in range(len(table.head))]
    rows = [[text.replace("|", "\\|") for cell in row for text in _cells(cell)] for row in table.rows]
    return [line(table.head), line(ruler), *map(line, rows)]


def _cells(cell: Cell) -> list[str]:
    notes = ", ".join(filter(None, cell.notes))
    return [_plain(f"{cell.text} ({notes})" if notes else cell.text), *[""] * (cell.columns - 1)]


def _plain(text: str) -> str:
    """Markdown in which only our backquotes mean anything: names may hold HTML, stars and newlines."""
    pieces = " ".join(text.split()).split("`")
    outside = str.maketrans({"<": "&lt;", ">": "&gt;", "*": "\\*", "_": "\\_", "[": "\\["})
    return "`".join(piece if i % 2 else piece.translate(outside) for i, piece in enumerate(pieces))
