"""The data doctor: everything that is wrong with a dataset, all at once, before a minute of training is spent on it.

Every file is decoded in full by the decoder that training uses. Nothing is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os import cpu_count
from pathlib import Path
from typing import Any

from transfer.data.contact_sheet import printable
from transfer.data.dataset import divide, gather, groups_for, open_shares, shares_for
from transfer.data.defects import Example, Finding, Level, Look, alike, balance, counted, handled, refusals
from transfer.data.duplicates import Pair, duplicate_pairs, group_ids
from transfer.data.listing import Item, Listing
from transfer.data.oddities import oddities
from transfer.data.sources import Data, class_names, index_listing
from transfer.data.split import TEST, TRAIN, VAL, count_groups, too_small
from transfer.data.thumbnails import keep, thumbnail
from zoo.errors import DataError, first_line
from zoo.image import ImageError
from zoo.lineage import BUILT_IN
from zoo.progress import Progress


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What `check_data` found.

    Attributes:
        source: what was checked.
        counts: class -> part -> images, in the parts that `fit` would make; "" for images that it cannot divide.
        pixels: (width, height) of the smallest, the median and the largest image, by area; empty if none can be read.
        findings: errors first, then warnings, then notes.
        pairs: images that are alike, by position.
        items: the images, by position, with their parts.
        listing: the images themselves.
    """

    source: str
    counts: dict[str, dict[str, int]]
    pixels: dict[str, tuple[int, int]]
    findings: tuple[Finding, ...]
    pairs: tuple[Pair, ...] = field(repr=False)
    items: tuple[Item, ...] = field(repr=False)
    listing: Listing = field(repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on how the source was read."""
        return self.listing.notes

    def of(self, level: Level) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == level]

    @property
    def ok(self) -> bool:
        """No errors: `fit` would accept this."""
        return not self.of("error")

    def groups(self) -> list[list[int]]:
        """Positions of the images that are alike, each group in order."""
        members: dict[int, list[int]] = {}
        for position, first in enumerate(group_ids(len(self.items), self.pairs)):
            members.setdefault(first, []).append(position)
        return [group for group in members.values() if len(group) > 1]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; bytes of file names that are no text are escaped."""
        kinds = {pair.second: pair.kind for pair in self.pairs} | {pair.first: pair.kind for pair in self.pairs}
        return {
            "source": _text(self.source),
            "ok": self.ok,
            "images": len(self.items),
            "errors": len(self.of("error")),
            "warnings": len(self.of("warning")),
            "classes": {_text(name): parts for name, parts in self.counts.items()},
            "pixels": {name: list(size) for name, size in self.pixels.items()},
            "notes": [_text(note) for note in self.notes],
            "findings": [
                {
                    "level": finding.level,
                    "kind": finding.kind,
                    "message": _text(finding.message),
                    "examples": [{"key": _text(e.key), "why": _text(e.why)} for e in finding.examples],
                }
                for finding in self.findings
            ],
            "duplicates": [
                [
                    {"key": _text(item.key), "class": _text(item.class_name), "part": item.part, "kind": kinds[i]}
                    for i, item in ((i, self.items[i]) for i in group)
                ]
                for group in self.groups()
            ],
        }

    def describe(self) -> list[str]:
        """Lines of text for a person."""
        parts = [part for part in (TRAIN, VAL, TEST, "") if any(part in counts for counts in self.counts.values())]
        width = min(32, max([len(printable(name)) for name in self.counts] + [5]))
        lines = [f"{printable(self.source)}: {len(self.items)} images, {len(self.counts)} classes"]
        lines += [printable(note) for note in self.notes]
        lines.append("".join([" " * (width + 2), *(f"{part or 'images':>8}" for part in parts)]))
        for name, counts in self.counts.items():
            label = printable(name)
            label = label if len(label) <= width else label[: width - 1] + "…"
            lines.append(f"  {label:{width}}" + "".join(f"{counts.get(part, 0):8}" for part in parts))
        if self.pixels:
            lines.append("pixels: " + ", ".join(f"{name} {w} x {h}" for name, (w, h) in self.pixels.items()))
        lines += [line for finding in self.findings for line in finding.describe()]
        errors, warnings = self.of("error"), self.of("warning")
        lines.append("ready to fit" if self.ok else f"not ready to fit: {counted(errors, 'kind of error')}")
        if warnings:
            lines[-1] += f" ({counted(warnings, 'kind of warning')})"
        return lines


def check_data(
    source: str | Path,
    *,
    val: float | str | None = None,
    test: float | str | None = None,
    seed: int = 0,
    layout: str = "auto",
    progress: Progress | None = None,
) -> DataCheck:
    """Decode every image and look for everything that could spoil a fit.

    Args:
        source, val, test, seed, layout: as in `open_data`.

    Raises:
        UsageError: nothing of that name.
        DataError: there is no image at all, or a table that cannot be read as one.
    """
    listing = gather(source, val=val, test=test, layout=layout, progress=progress)
    looks = _look(listing, progress)
    pictures = {item.digest: look.picture for item, look in zip(listing.items, looks, strict=True)}
    keep(pictures)  # for the split that `fit` makes
    known = {digest: picture for digest, picture in pictures.items() if picture is not None}
    pairs = duplicate_pairs([item.digest for item in listing.items], {} if str(source) in BUILT_IN else known)
    findings = [*refusals(listing, looks)]
    divided, refused = _divide(listing, looks, source, val, test, seed)
    findings += refused
    items = tuple(replace(item, part=divided.get(i, item.part)) for i, item in enumerate(listing.items))
    findings += balance(items)
    findings += alike(listing.items, pairs)
    findings += handled(listing, looks)
    counts: dict[str, dict[str, int]] = {name: {} for name in sorted({item.class_name for item in items})}
    for item in items:
        counts[item.class_name][item.part] = counts[item.class_name].get(item.part, 0) + 1
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
    return DataCheck(
        source=str(source),
        counts=counts,
        pixels=_pixels([look.size for look in looks if look.size]),
        findings=tuple(sorted(findings, key=lambda finding: order[finding.level])),
        pairs=tuple(pairs),
        items=items,
        listing=listing,
    )


def _look(listing: Listing, progress: Progress | None) -> list[Look]:
    def look(index: int) -> Look:
        content = listing.content(index)
        odd = [] if content is None else oddities(content)
        try:
            image = listing.read(index)
        except ImageError as error:
            return Look(None, first_line(error), odd, None)
        return Look((image.shape[1], image.shape[0]), "", odd, thumbnail(image))

    looks = []
    with ThreadPoolExecutor(max_workers=min(8, cpu_count() or 1)) as pool:
        for done, found in enumerate(pool.map(look, range(len(listing.items))), start=1):
            looks.append(found)
            if progress is not None and (done % 16 == 0 or done == len(listing.items)):
                progress("checking images", done, len(listing.items), "")
    return looks


def _divide(
    listing: Listing,
    looks: Sequence[Look],
    source: str | Path,
    val: float | str | None,
    test: float | str | None,
    seed: int,
) -> tuple[dict[int, str], list[Finding]]:
    """The part of each usable image in the split that `fit` would make, or why it could not make one."""
    classes = class_names(listing)
    good = [
        i
        for i, (item, look) in enumerate(zip(listing.items, looks, strict=True))
        if not look.failure and item.class_name in classes
    ]
    if not good:
        return {}, []
    usable = replace(
        listing,
        items=tuple(listing.items[i] for i in good),
        problems=(),
        read=lambda i, least=None: listing.read(good[i], least),
    )
    data = index_listing(usable)
    shares = shares_for(source, val, test)
    built_in = str(source) in BUILT_IN
    groups = list(data.hashes) if built_in else groups_for(data, *shares)
    wanted = 1 + sum(share > 0 for share in open_shares(data, *shares).values())
    small = list(_too_small(data, groups, wanted))
    if small:
        message = f"{counted(small, 'class')} too small to divide into training, validation and test images"
        return {}, [Finding("error", "too small", message, tuple(small))]
    try:
        parts = divide(data, groups, *shares, seed=0 if built_in else seed).parts.tolist()
    except DataError as error:
        return {}, [Finding("error", "no split", first_line(error))]
    return dict(zip(good, parts, strict=True)), []


def _too_small(data: Data, groups: Sequence[Any], wanted: int) -> Iterator[Example]:
    free = [i for i, part in enumerate(data.parts.tolist()) if part in ("", TRAIN)]
    labels = data.labels[free].tolist()
    images = Counter(labels)
    for label, distinct in enumerate(count_groups(labels, [groups[i] for i in free])):
        if distinct < wanted:
            yield Example(data.classes[label], too_small(data.classes[label], distinct, images[label], wanted))


def _pixels(sizes: Sequence[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    if not sizes:
        return {}
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return {"smallest": ordered[0], "median": ordered[len(ordered) // 2], "largest": ordered[-1]}


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
