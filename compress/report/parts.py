"""What a report is made of: sections, with tables, charts and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.report.figures import Cell


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: int = 1  # leading columns that hold words, not numbers
    marked: int | None = None  # the row to stand out
    joined: bool = False  # rows are the models in order, and light up with what stands for them in a chart


@dataclass(frozen=True)
class Picture:
    chart: Any  # Altair's
    file: str  # of the PNG, beside the report


@dataclass(frozen=True)
class Photo:
    """An image of at most 128 px, and what became of its answer."""

    name: str
    class_name: str
    image: NDArray[np.uint8]
    lost: bool

    @property
    def said(self) -> str:
        return "right before, wrong now" if self.lost else "wrong before, right now"


@dataclass(frozen=True)
class Gallery:
    photos: Sequence[Photo]
    file: str  # of all as one PNG, beside the report


@dataclass(frozen=True)
class Section:
    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    code: Sequence[str] = ()
    picture: Picture | None = None
    gallery: Gallery | None = None

    @property
    def file(self) -> str | None:
        """The PNG beside the report that shows what it shows."""
        return self.picture.file if self.picture else self.gallery.file if self.gallery else None
