"""The data card: how many images a model was made of, of which classes and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.report.figures import Cell, quoted
from compress.report.parts import Table
from transfer.data.sources import Data
from zoo.image import open_header

LOOKED_AT = 500  # files, for the sizes of images


def data_table(data: Data) -> Table:
    """How many images, of which classes and sizes, and what was left out."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    order = np.argsort(counts, kind="stable")
    least, median, most = (int(order[i]) for i in (0, len(order) // 2, -1))
    parts = ", ".join(f"{part} {n}" for part, n in data.sizes().items() if n)
    of_classes = f"{len(counts)}, of {counts[least]} images ({quoted(data.classes[least])}) to {counts[most]} "
    of_classes += f"({quoted(data.classes[most])}), the median {counts[median]}"
    rows = [("images", f"{len(data.keys):,} ({parts})"), ("classes", of_classes)]
    sizes = _sizes(data)
    if sizes:
        said = [f"{width} x {height}" for width, height in (sizes[0], sizes[len(sizes) // 2], sizes[-1])]
        of = "" if len(sizes) == len(data.keys) else f", of the first {len(sizes)}"
        rows.append(("pixels", f"{said[1]} the median, {said[0]} to {said[2]}{of}"))
    if data.groups and (alike := len(data.groups) - len(set(data.groups))):
        rows.append(("alike", f"{alike} that another one resembles; those stay together in one part"))
    if data.ignored:
        rows.append(("left out", f"{len(data.ignored)} files or folders that are no images of a class"))
    return Table(["", ""], [[Cell(name), Cell(text)] for name, text in rows], words=2)


def _sizes(data: Data) -> list[tuple[int, int]]:
    """(width, height) of files, by their area."""
    found = []
    for key in data.keys[:LOOKED_AT]:
        if Path(key).is_file():
            with open_header(key) as image:
                found.append(image.size)
    return sorted(found, key=lambda size: (size[0] * size[1], size))
