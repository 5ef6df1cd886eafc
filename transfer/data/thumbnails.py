"""What is left of an image when its size, its file format and its finest detail are taken away: 16 x 16 pixels.

They are the perceptual hash by which near duplicates are found, and are kept on disk by the image's SHA-256, so that an
image is decoded for this once.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from os import cpu_count

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfer.data.listing import Read
from zoo.disk import cache_directory
from zoo.image import ImageError
from zoo.progress import Progress

SIDE = 16
MIN_SIDE = SIDE  # of an image, in pixels: of smaller ones nothing would be taken away
VERSION = 3  # of the rule below, and of zoo/image.py; counted up when one changes
LOOK_UP = 500  # names in one question to the cache; SQLite allows 999


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """(h, w, 3) to (16, 16, 3) uint8, squashed, each pixel averaged over its surroundings; None for tiny images."""
    if min(image.shape[:2]) < MIN_SIDE:
        return None
    # Pillow's bilinear filter is a triangle two cells wide: it forgives half a cell more than a box would
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def thumbnails(hashes: Sequence[str], read: Read, *, progress: Progress | None = None) -> dict[str, NDArray[np.uint8]]:
    """{hash: thumbnail} of all images but the tiny and the unreadable ones.

    Args:
        hashes: SHA-256 of each image.
        read: position -> image; asked for each hash once at most, by several threads.
    """
    found = recall(hashes)
    position = {digest: i for i, digest in enumerate(hashes) if digest not in found}

    def make(digest: str) -> NDArray[np.uint8] | None:
        try:
            return thumbnail(read(position[digest], (2 * SIDE, 2 * SIDE)))
        except ImageError:  # who needs this image will say so
            return None

    made: dict[str, NDArray[np.uint8] | None] = {}
    with ThreadPoolExecutor(max_workers=min(8, cpu_count() or 1)) as pool:
        for done, (digest, one) in enumerate(zip(position, pool.map(make, position), strict=True), start=1):
            made[digest] = one
            if progress is not None and (done % 16 == 0 or done == len(position)):
                progress("looking for duplicates", done, len(position), "")
    keep(made)
    return {digest: one for digest, one in {**found, **made}.items() if one is not None}


def recall(hashes: Sequence[str]) -> dict[str, NDArray[np.uint8] | None]:
    """What the cache has of these; None for an image that has no thumbnail."""
    found: dict[str, NDArray[np.uint8] | None] = {}
    wanted = list(dict.fromkeys(hashes))
    with contextlib.suppress(sqlite3.Error, OSError), _cache() as cache:
        for start in range(0, len(wanted), LOOK_UP):
            asked = wanted[start : start + LOOK_UP]
            rows = cache.execute(f"SELECT * FROM thumbnails WHERE digest IN ({','.join('?' * len(asked))})", asked)
            for digest, pixels in rows:
                if len(pixels) in (0, SIDE * SIDE * 3):
                    found[digest] = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE, 3) if pixels else None
    return found


def keep(made: Mapping[str, NDArray[np.uint8] | None]) -> None:
    """Add to the cache; one that cannot be written is no error."""
    rows = [(digest, b"" if one is None else one.tobytes()) for digest, one in made.items()]
    with contextlib.suppress(sqlite3.Error, OSError), _cache() as cache, cache:
        cache.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", rows)


@contextlib.contextmanager
def _cache() -> Iterator[sqlite3.Connection]:
    """One file for all datasets, which several processes may use at once."""
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / f"thumbnails-{VERSION}.sqlite", timeout=10)) as cache:
        cache.execute("CREATE TABLE IF NOT EXISTS thumbnails (digest TEXT PRIMARY KEY, pixels BLOB) WITHOUT ROWID")
        yield cache
