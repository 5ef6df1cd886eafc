"""What can be wrong with a dataset, one kind a finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfer.data.contact_sheet import printable
from transfer.data.duplicates import Pair
from transfer.data.left_out import left_out
from transfer.data.listing import Item, Listing
from transfer.data.oddities import BOMB, MEANING
from transfer.data.sources import class_names, unknown_class
from transfer.data.split import TRAIN
from transfer.data.thumbnails import MIN_SIDE

Level = Literal["error", "warning", "note"]
MAX_IMBALANCE = 10.0  # images of the largest class for one of the smallest; above it accuracy hides the small ones
SHOWN = 5  # examples of a finding in the text; JSON has them all


@dataclass(frozen=True)
class Example:
    """One image, file or class that a finding is about."""

    key: str
    why: str = ""


@dataclass(frozen=True)
class Finding:
    """One kind of defect: an "error" keeps a model from being fitted, a "warning" spoils it, a "note" is handled."""

    level: Level
    kind: str
    message: str
    examples: tuple[Example, ...] = ()

    def describe(self) -> Iterator[str]:
        yield f"{self.level + ':':8} {printable(self.message)}"
        for example in self.examples[:SHOWN]:
            yield f"           {printable(example.key)}" + (f": {printable(example.why)}" if example.why else "")
        if len(self.examples) > SHOWN:
            yield f"           and {len(self.examples) - SHOWN} more"


@dataclass(frozen=True)
class Look:
    """One image, decoded: its size (width, height), or why it could not be; what is unusual; its thumbnail."""

    size: tuple[int, int] | None
    failure: str
    odd: list[str]
    picture: NDArray[np.uint8] | None


def refusals(listing: Listing, looks: Sequence[Look]) -> Iterator[Finding]:
    """What makes `fit` refuse the source."""
    broken = [
        (item.key, look.failure, BOMB in look.odd)
        for item, look in zip(listing.items, looks, strict=True)
        if look.failure
    ]
    missing = [Example(p.key, _without(p.key, p.message)) for p in listing.problems if p.kind == "unreadable"]
    unreadable = [Example(key, _without(key, why)) for key, why, bomb in broken if not bomb] + missing
    if unreadable:
        yield Finding("error", "unreadable", f"{counted(unreadable, 'image')} cannot be read", tuple(unreadable))
    bombs = [Example(key, _without(key, why)) for key, why, bomb in broken if bomb]
    if bombs:
        yield Finding("error", "too large", f"{counted(bombs, 'image')} with too many pixels to decode", tuple(bombs))
    for kinds, said in (
        (("empty class",), "class folder(s) without images"),
        (("row", "split"), "row(s) that cannot be used"),
    ):
        found = [Example(p.key, _without(p.key, p.message)) for p in listing.problems if p.kind in kinds]
        if found:
            yield Finding("error", kinds[0], f"{len(found)} {said}", tuple(found))
    classes = class_names(listing)
    if len(classes) < 2:
        yield Finding("error", "one class", f"{len(classes)} class to train on; wanted at least two folders or labels")
    strange = [item for item in listing.items if item.class_name not in classes]
    if strange:
        names = {item.class_name: item for item in reversed(strange)}
        found = [
            Example(name, _without(item.key, unknown_class(item.key, name, classes))) for name, item in names.items()
        ]
        yield Finding("error", "unknown class", f"{counted(strange, 'image')} of classes not trained on", tuple(found))


def balance(items: Sequence[Item]) -> Iterator[Finding]:
    """Report how the images that are trained on are balanced."""
    sizes = Counter(item.class_name for item in items if item.part in ("", TRAIN))
    if not sizes:
        return
    (large, most), (small, least) = sizes.most_common()[0], sizes.most_common()[-1]
    if most > MAX_IMBALANCE * least:
        message = f"the largest class has {most / least:.0f} times the training images of the smallest"
        found = (Example(large, f"{most} images"), Example(small, f"{least} images"))
        yield Finding("warning", "imbalance", message, found)
    single = [Example(name) for name, count in sizes.items() if count == 1]
    if single:
        yield Finding("warning", "one image", f"{counted(single, 'class')} with one training image", tuple(single))
    by_letters: dict[str, list[str]] = {}
    for name in sorted({item.class_name for item in items}):
        by_letters.setdefault("".join(name.split()).casefold(), []).append(name)
    similar = [
        Example(names[0], f"and {', '.join(map(repr, names[1:]))}") for names in by_letters.values() if names[1:]
    ]
    if similar:
        message = "class names that differ by case or blanks only are classes of their own"
        yield Finding("warning", "similar names", message, tuple(similar))


def alike(items: Sequence[Item], pairs: Sequence[Pair]) -> Iterator[Finding]:
    def examples(chosen: Sequence[Pair]) -> tuple[Example, ...]:
        return tuple(Example(items[p.first].key, f"{p.kind} {items[p.second].key}") for p in chosen)

    kinds = Counter(pair.kind for pair in pairs)
    if pairs:
        said = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        message = f"{counted(pairs, 'image')} like another one ({said}); on one side of every split that is made here"
        yield Finding("warning", "duplicates", message, examples(pairs))
    across = [p for p in pairs if items[p.first].part != items[p.second].part]
    if across:
        message = (
            f"{counted(across, 'pair')} in two of the parts that the data name: measured accuracy will be too high"
        )
        yield Finding("warning", "leakage", message, examples(across))
    torn = [p for p in pairs if items[p.first].class_name != items[p.second].class_name]
    if torn:
        found = tuple(
            Example(e.key, f"{items[p.first].class_name!r}; {e.why}: {items[p.second].class_name!r}")
            for e, p in zip(examples(torn), torn, strict=True)
        )
        yield Finding("warning", "conflicting labels", f"{counted(torn, 'pair')} with two labels", found)


def handled(listing: Listing, looks: Sequence[Look]) -> Iterator[Finding]:
    tiny = [
        Example(item.key, f"{look.size[0]} x {look.size[1]}")
        for item, look in zip(listing.items, looks, strict=True)
        if look.size and min(look.size) < MIN_SIDE
    ]
    if tiny:
        yield Finding("warning", "tiny", f"{counted(tiny, 'image')} smaller than {MIN_SIDE} pixels", tuple(tiny))
    for kind_left_out in left_out(listing.ignored):
        found = tuple(Example(e.key, e.why) for e in kind_left_out.members)
        message = f"{counted(found, 'file')} ignored" + (f"; {kind_left_out.why}" if kind_left_out.why else "")
        yield Finding(kind_left_out.level, "ignored", message, found)
    for kind, meaning in MEANING.items():
        odd = [
            Example(item.key) for item, look in zip(listing.items, looks, strict=True) if kind in look.odd and look.size
        ]
        if odd:
            yield Finding("note", kind, f"{counted(odd, 'image')}: {kind} ({meaning})", tuple(odd))


def counted(things: Sequence[object], name: str) -> str:
    """ "1 class", "3 classes", "2 kinds of error"."""
    noun, _, rest = name.partition(" ")
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{len(things)} {noun if len(things) == 1 else plural}" + (f" {rest}" if rest else "")


def _without(key: str, message: str) -> str:
    """A message names its file, and so does an example."""
    return message.removeprefix(f"{key}: ").removeprefix(f"{key}, ")
