"""Images whose answer a compression has changed, as pictures; from the data of the fit, since records hold none."""

from __future__ import annotations

import base64
import io
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.report.figures import quoted
from compress.report.parts import Gallery, Photo, Section
from compress.report.variants import Variant
from transfer.data.contact_sheet import SIDE, Tile, printable, save_contact_sheet
from transfer.data.sources import Data

MOST = 24  # pictures: of 3 to 8 kB each
QUALITY = 85  # of JPEG
LOST, GAINED = "#d62728", "#1f9d63"
SHEET = "report-changed.png"


def picture_uri(photo: Photo) -> str:
    """The picture itself, for a page that asks nobody for anything."""
    held = io.BytesIO()
    Image.fromarray(photo.image).save(held, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()


def save_gallery(gallery: Gallery, folder: Path) -> None:
    tiles = [
        Tile(photo.image, f"{photo.said}\n{photo.class_name}\n{photo.name}", LOST if photo.lost else GAINED)
        for photo in gallery.photos
    ]
    save_contact_sheet(tiles, folder / gallery.file)


def changed_section(data: Data, part: str, baseline: Variant, other: Variant) -> Section | None:
    """The images of a part that one of both models answers right and the other wrong; None where there are none.

    None too where their answers are not to as many images as the part has.
    """
    before, after = (variant.accuracy[part].correct for variant in (baseline, other))
    where = data.indices(part)
    if before is None or after is None or len({len(before), len(after), len(where)}) > 1:
        return None
    flips = sorted((i for i in range(len(where)) if before[i] != after[i]), key=lambda i: before[i] < after[i])
    if not flips:
        return None
    lost = sum(before[i] > after[i] for i in flips)
    shown = _spread(flips[:lost], flips[lost:])
    photos = [
        Photo(
            printable(PurePath(data.keys[at]).name),
            data.classes[data.labels[at]],
            _small(data.read(at, (SIDE, SIDE))),
            before[i] > after[i],
        )
        for i in shown
        for at in [int(where[i])]
    ]
    said = f"Of {len(where)} images, {quoted(other.name)} answers {lost} wrong that {quoted(baseline.name)} had right"
    said += f", and {len(flips) - lost} right that it had wrong"
    said += "." if len(shown) == len(flips) else f"; {len(shown)} of them."
    return Section("Which images changed", [said], gallery=Gallery(photos, SHEET))


def _spread(lost: list[int], gained: list[int]) -> list[int]:
    """At most MOST of both, as many of each as there is room for, evenly out of all."""
    few = min(len(gained), max(MOST // 2, MOST - len(lost)))
    parts = ((lost, min(len(lost), MOST - few)), (gained, few))
    return [one[i] for one, count in parts for i in np.linspace(0, len(one) - 1, count).round().astype(int).tolist()]


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).copy())
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture)
