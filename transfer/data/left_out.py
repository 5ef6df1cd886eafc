"""What of a source was not taken for an image, one kind at a time, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transfer.data.image_files import MADE_BY_SYSTEM, WRITTEN
from transfer.data.listing import Ignored
from zoo.image import HEIC_EXTENSIONS, HEIC_NEEDS

# image formats that load_image does not read, which people have folders full of
CONVERTIBLE = frozenset(
    {".jp2", ".jxl", ".ppm", ".pgm", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"}
)
KINDS_SHOWN = 4


@dataclass(frozen=True)
class LeftOut:
    """Files or folders that were left out for one reason.

    Attributes:
        level: "warning" where they may be images.
        why: what they are, and what to do.
    """

    level: Literal["warning", "note"]
    why: str
    members: tuple[Ignored, ...]

    def describe(self) -> Iterator[str]:
        """A line: "left out: 14 .heic (HEIC, as phones write it; ...)"."""
        yield f"left out: {names_of(self.members)}" + (f" ({self.why})" if self.why else "")


def left_out(ignored: Sequence[Ignored]) -> list[LeftOut]:
    """Every file and folder in the first of these kinds that it is of."""
    kinds: tuple[tuple[Literal["warning", "note"], Callable[[Ignored], bool], str], ...] = (
        ("warning", lambda e: e.why in HEIC_EXTENSIONS, f"HEIC, as phones write it; {HEIC_NEEDS}"),
        ("warning", lambda e: e.why in CONVERTIBLE, "convert them to PNG or JPEG"),
        ("warning", lambda e: e.why.startswith("stands beside ") and Path(e.key).is_dir(), "beside parts, and none"),
        ("note", lambda e: e.why == MADE_BY_SYSTEM, MADE_BY_SYSTEM),
        ("note", lambda e: e.why == WRITTEN, WRITTEN),
        ("note", lambda e: True, ""),
    )
    rest, found = list(ignored), []
    for level, belongs, why in kinds:
        members = tuple(e for e in rest if belongs(e))
        rest = [e for e in rest if not belongs(e)]
        if members:
            found.append(LeftOut(level, why, members))
    return found


def names_of(members: Sequence[Ignored]) -> str:
    """Files by extension, the others by name: "3 .txt, 1 .json, dev"."""
    extensions = Counter(e.why for e in members if e.why.startswith("."))
    names = [f"{count} {why}" for why, count in extensions.most_common()]
    names += [Path(e.key).name for e in members if not e.why.startswith(".")]
    more = f" and {len(names) - KINDS_SHOWN} more" if len(names) > KINDS_SHOWN else ""
    return ", ".join(names[:KINDS_SHOWN]) + more
