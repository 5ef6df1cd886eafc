"""Which images a model has seen: a few bytes of a hash of each, so that none is taken for a new one later."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BYTES = 6  # of a hash, 8 characters of base64: of 1e5 images and 1e6 others, 4e-4 pairs are equal by chance
FOLD = "fold"
PARTS = ("train", FOLD, "val", "test")  # the more was done with an image, the earlier


@dataclass(frozen=True)
class Seen:
    """The images of a model's training, each in the part that most was done with.

    An image is in it by the hash of its file's bytes and by that of its pixels as the network takes them: a file that
    was saved again, without loss or with another name, has the second one still.

    Attributes:
        train: trained or calibrated on.
        fold: choices were made by them, with a model that had not been trained on them, and this one was in the end.
        val: choices were made by them.
        test: measured on alone.
    """

    train: frozenset[bytes] = frozenset()
    fold: frozenset[bytes] = frozenset()
    val: frozenset[bytes] = frozenset()
    test: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, hashes: Iterable[str], parts: Iterable[str]) -> Seen:
        """Make it of hexadecimal hashes, and the part of the image that each is of."""
        found: dict[str, set[bytes]] = {part: set() for part in PARTS}
        for digest, part in zip(hashes, parts, strict=True):
            found[part].add(short(digest))
        return cls() | cls(**{part: frozenset(members) for part, members in found.items()})

    def part_of(self, *hashes: str) -> str | None:
        """The first part that has one of these hexadecimal hashes of an image; None of an image that is new."""
        members = [short(digest) for digest in hashes]
        return next((part for part in PARTS if any(member in getattr(self, part) for member in members)), None)

    def __or__(self, other: Seen) -> Seen:
        found: dict[str, frozenset[bytes]] = {}
        for part in PARTS:
            found[part] = (getattr(self, part) | getattr(other, part)).difference(*found.values())
        return Seen(**found)

    def to_json(self) -> dict[str, str]:
        """Each part as base64 of its members in order; without folds where there are none, as before there were any."""
        written = [part for part in PARTS if part != FOLD or self.fold]
        return {part: base64.b64encode(b"".join(sorted(getattr(self, part)))).decode() for part in written}

    @classmethod
    def from_json(cls, document: Mapping[str, str] | None) -> Seen | None:
        """What `to_json` gave; None of a model from before it was kept.

        Raises:
            ValueError: it is something else.
        """
        if document is None:
            return None
        document = {FOLD: "", **document}
        return cls(**{part: _members(document[part]) for part in PARTS})


def short(digest: str) -> bytes:
    """What is kept of a hexadecimal hash."""
    return bytes.fromhex(digest[: 2 * BYTES])


def _members(text: str) -> frozenset[bytes]:
    try:
        joined = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"hashes of images are no base64: {error}") from error
    return frozenset(joined[start : start + BYTES] for start in range(0, len(joined), BYTES))
