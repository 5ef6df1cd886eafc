"""What a source of images holds before anybody asks whether it is any good: its images and everything wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.class_name import as_class_name
from zoo.image import load_image

Content = Path | bytes | None  # an image's file, its bytes, or None: it was never a file


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        key: names it in messages: its path, or "digits/17".
        class_name: its label, as zoo.class_name writes it.
        part: "train", "val", "test", or "" where the source leaves that open.
        digest: SHA-256 of its file's bytes or of its pixels.
    """

    key: str
    class_name: str
    part: str
    digest: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_name", as_class_name(self.class_name))


@dataclass(frozen=True)
class Problem:
    """What keeps a source from being used as it is.

    Attributes:
        kind: "unreadable" (an image that is not there), "empty class", "row" (of a table), or "split" (what it says of
            parts).
        key: the file, folder or row.
        message: one line; also the text of the DataError where the source is opened to be used.
    """

    kind: str
    key: str
    message: str


@dataclass(frozen=True)
class Ignored:
    """A file or folder of an image folder that is not taken for an image, and why."""

    key: str
    why: str


class Read(Protocol):
    def __call__(self, index: int, least: tuple[int, int] | None = None, /) -> NDArray[np.uint8]:
        """(h, w, 3) RGB of the image at that place; of one that can be decoded to less, `least` is (h, w) enough."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All images of a source, and all that is wrong with it.

    Attributes:
        name: what the user called it.
        items: the images.
        read: of images; raises zoo.image.ImageError.
        content: index -> the file or the bytes behind it.
        problems: in the order of the source.
        ignored: what is there and was left out; hidden files are left out without a word.
        mirror: whether a mirrored image is still of its class (False for digits).
        notes: lines for a person on how the source was read; those of doubt begin with "warning: ".
    """

    name: str
    items: tuple[Item, ...]
    read: Read
    content: Callable[[int], Content]
    problems: tuple[Problem, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    mirror: bool = True
    notes: tuple[str, ...] = ()

    def with_part(self, other: Listing, part: str) -> Listing:
        """This and all of `other`, as one more part."""
        size, first, second = len(self.items), self, other
        return replace(
            self,
            items=self.items + tuple(replace(item, part=part) for item in other.items),
            read=lambda index, least=None: (
                first.read(index, least) if index < size else second.read(index - size, least)
            ),
            content=lambda index: first.content(index) if index < size else second.content(index - size),
            problems=self.problems + other.problems,
            ignored=self.ignored + other.ignored,
            notes=self.notes + other.notes,
        )


def list_files(
    name: str,
    found: Sequence[tuple[Path, str, str]],
    *,
    problems: Sequence[Problem] = (),
    ignored: Sequence[Ignored] = (),
) -> Listing:
    """List (file, class name, part) of each image; a file that is not there is a problem, not an item."""
    paths: list[Path] = []
    items: list[Item] = []
    missing: list[Problem] = []
    for path, class_name, part in found:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            why = getattr(error, "strerror", None) or str(error)
            missing.append(Problem("unreadable", str(path), f"{path}: {why}; listed in {name}"))
            continue
        paths.append(path)
        items.append(Item(str(path), class_name, part, digest))
    return Listing(
        name=name,
        items=tuple(items),
        read=lambda index, least=None: load_image(paths[index], least=least),
        content=lambda index: paths[index],
        problems=(*problems, *missing),
        ignored=tuple(ignored),
    )
