"""Which part of a dataset a name means, as people write it: "Training", "test_set", "val2017", "X_train"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from transfer.data.split import TEST, TRAIN, VAL

WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), TRAIN),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "devel", "development"), VAL),
    **dict.fromkeys(("eval", "evaluation"), VAL),  # what is looked at while training goes on
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), TEST),
}
# which say nothing of their own beside such a word
FILLERS = set("set sets data dataset image images img imgs split part folder public private".split())
JOINED = re.compile(rf"({'|'.join(sorted(WORDS, key=len, reverse=True))})(set|data|images|imgs)")
WANTED = "train, val or test"  # what messages ask for


def part_of(name: str) -> str:
    """ "train", "val" or "test" where the name means that part and nothing else, else ""."""
    part, rest = part_and_rest(name)
    return part if not rest else ""


def part_and_rest(name: str) -> tuple[str, tuple[str, ...]]:
    """The part whose word is in the name, and the other words, numbers and fillers left out: "seg_train", "seg_test".

    "" where there is no such word, or those of two parts.
    """
    spaced = re.sub(r"held[\W_]*out", "heldout", re.sub(r"hold[\W_]*out", "holdout", name, flags=re.I), flags=re.I)
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", spaced)
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", spaced)]
    words = [joined[1] if (joined := JOINED.fullmatch(word)) else word for word in words]
    parts = {WORDS[word] for word in words if word in WORDS}
    if len(parts) != 1:
        return "", ()
    return parts.pop(), tuple(word for word in words if word not in WORDS and word not in FILLERS)


def parts_of(names: Iterable[str]) -> dict[str, str]:
    """name -> part, of the names that mean one; so do several that share other words: "seg_train" and "seg_test"."""
    names = list(names)
    split = {name: part_and_rest(name) for name in names}
    found = {name: part for name, (part, rest) in split.items() if part and not rest}
    for name, (part, rest) in split.items():
        others = {split[other][0] for other in names if split[other][1] == rest and split[other][0]}
        if rest and len(others) > 1:
            found[name] = part
    return found
