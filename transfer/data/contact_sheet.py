"""Contact sheets: many small images with a line or two of text under each, as one PNG. Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # pixels of the square that every image is fitted into
GAP = 8
FRAME = 3  # width of the coloured frame
FONT_PIXELS = 11
LINE_PIXELS = 14
MAX_LINES = 5  # of one caption; the rest is cut off with an ellipsis
INK, PAPER = "#222222", "#ffffff"


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        image: (h, w, 3) uint8 RGB of any size; small ones are enlarged in whole steps, so that pixels stay visible.
        caption: lines under it; long lines are wrapped.
        colour: of a frame around it, as Pillow names colours ("red", "#d95f02"); "" for none.
    """

    image: NDArray[np.uint8]
    caption: str
    colour: str = ""


def save_contact_sheet(tiles: Sequence[Tile], path: str | Path, *, title: str = "", columns: int = 8) -> None:
    """Write the tiles, row by row, as a PNG.

    Args:
        columns: tiles a row.

    Raises:
        ValueError: no tiles.
    """
    if not tiles:
        raise ValueError("a contact sheet of no tiles; wanted at least one")
    font = ImageFont.load_default(FONT_PIXELS)
    columns = min(columns, len(tiles))
    captions = [_wrap(tile.caption, font) for tile in tiles]
    titles = _wrap(title, font, width=columns * (SIDE + GAP) - GAP)
    lines = [max(map(len, captions[row : row + columns])) for row in range(0, len(tiles), columns)]
    heights = [GAP + SIDE + 2 + LINE_PIXELS * count for count in lines]
    top = len(titles) * LINE_PIXELS + (GAP if titles else 0)
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, top + sum(heights) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, titles, GAP, GAP, font)
    y = top
    for row, height in enumerate(heights):
        for column, i in enumerate(range(row * columns, min((row + 1) * columns, len(tiles)))):
            x = GAP + column * (SIDE + GAP)
            picture = _fit(tiles[i].image)
            sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + GAP + (SIDE - picture.height) // 2))
            if tiles[i].colour:
                corner = (x + SIDE - 1, y + GAP + SIDE - 1)
                draw.rectangle(((x, y + GAP), corner), outline=tiles[i].colour, width=FRAME)
            _write(draw, captions[i], x, y + GAP + SIDE + 2, font)
        y += height
    sheet.save(path, format="PNG")


def printable(text: str) -> str:
    """`text` on one line: control characters, line breaks and lone surrogates of file names as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _fit(image: NDArray[np.uint8]) -> Image.Image:
    """At most SIDE x SIDE, the aspect kept."""
    picture = Image.fromarray(image)
    room = SIDE - 2 * FRAME
    if max(picture.size) * 2 <= room:
        times = room // max(picture.size)
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    scale = min(1.0, room / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int = SIDE) -> list[str]:
    """Lines of at most `width` pixels, cut anywhere: file names have no blanks."""
    lines: list[str] = []
    for line in text.split("\n") if text else []:
        rest = printable(line)
        while rest:
            count = len(rest)
            while count > 1 and font.getlength(rest[:count]) > width:
                count -= max(1, int((font.getlength(rest[:count]) - width) / (2 * FONT_PIXELS)))
            lines.append(rest[:count].strip())
            rest = rest[count:].strip()
    return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "…"]


def _write(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], x: int, y: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    for number, line in enumerate(lines):
        draw.text((x, y + number * LINE_PIXELS), line, fill=INK, font=font)
