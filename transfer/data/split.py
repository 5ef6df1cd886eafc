"""Stratified, leak-free splits: each class is divided in the same shares, and like images stay on one side."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError, UsageError

TRAIN, VAL, TEST = "train", "val", "test"


def stratified_split(
    labels: Sequence[int],
    *,
    val: float,
    test: float,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    classes: Sequence[str] | None = None,
) -> NDArray[np.str_]:
    """Assign each item to "train", "val" or "test", class by class.

    A class of n groups of images gives round(n x share) to each part asked for, the rest to train, and at least 1 to
    each. A group with images of several classes counts in each of them; the smallest of these classes places it, and
    the others divide what is left so that they come as near to their shares as they can.

    Args:
        labels: class index of each item.
        val, test: shares in [0, 1); 0 makes no such part.
        seed: of `numpy.random.default_rng`, which draws one permutation a class, in class order.
        groups: of each item; items of one group go to the same part. By default each item is a group of its own.
        classes: names for messages.

    Returns:
        (N,) array of part names.

    Raises:
        UsageError: the shares leave nothing for training.
        DataError: a class has fewer groups than there are parts.
    """
    check_shares(val, test)
    by_class = _groups(labels, groups)
    wanted = 1 + (val > 0) + (test > 0)
    for label, members in enumerate(by_class):
        if len(members) < wanted:
            name = classes[label] if classes is not None else str(label)
            raise DataError(too_small(name, len(members), int(np.sum(np.asarray(labels) == label)), wanted))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(members)) for members in by_class]
    placed: dict[Hashable, str] = {}
    for label in sorted(range(len(by_class)), key=lambda label: len(by_class[label])):
        free = [group for i in orders[label] if (group := by_class[label][i]) not in placed]
        taken = [placed[group] for group in by_class[label] if group in placed]
        n_test, n_val = _quotas(len(by_class[label]), len(free), taken, val=val, test=test)
        placed |= dict.fromkeys(free[n_test + n_val :], TRAIN)
        placed |= dict.fromkeys(free[:n_test], TEST)
        placed |= dict.fromkeys(free[n_test : n_test + n_val], VAL)
    of_item = range(len(labels)) if groups is None else groups
    return np.array([placed[group] for group in of_item], dtype="<U5")


def check_shares(val: float, test: float) -> None:
    """Refuse shares that leave nothing for training.

    Raises:
        UsageError: see there.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(
            f"val={val} and test={test} must be shares from 0 to below 1 that leave something for training: 0.2, or 20%"
        )


def count_groups(labels: Sequence[int], groups: Sequence[Hashable] | None) -> list[int]:
    """How many groups each class has: what counts as its distinct images."""
    return [len(members) for members in _groups(labels, groups)]


def too_small(name: str, distinct: int, images: int, wanted: int) -> str:
    """What is said of a class that cannot be divided."""
    count = "1 distinct image" if distinct == 1 else f"{distinct} distinct images"
    copies = "" if images == distinct else f" ({images} with copies of each other; `slimzoo data check` lists them)"
    return (
        f"class {name!r} has {count}{copies}; a split into {wanted} parts wants at least {wanted}: "
        "add images, take the class out, or give less to --val and --test"
    )


def _groups(labels: Sequence[int], groups: Sequence[Hashable] | None) -> list[list[Hashable]]:
    """The groups of each class, in the order of their first items."""
    found: list[dict[Hashable, None]] = [{} for _ in range(max(labels, default=-1) + 1)]
    for label, group in zip(labels, range(len(labels)) if groups is None else groups, strict=True):
        found[label][group] = None
    return [list(members) for members in found]


def _quotas(size: int, free: int, taken: Sequence[str], *, val: float, test: float) -> tuple[int, int]:
    """How many of a class's `free` groups go to test and to validation, where others of it have been placed already."""
    shares = {TEST: test, VAL: val}
    # a part that has nothing of this class yet gets one before any other gets a second
    first = {part: int(part not in taken and shares.get(part, 1) > 0) for part in (TRAIN, VAL, TEST)}
    counts = {}
    left = free
    for part in (TEST, VAL):
        goal = max(1, round(size * shares[part])) - taken.count(part) if shares[part] > 0 else 0
        first[part] = 0  # this part's own turn
        counts[part] = max(0, min(goal, left - sum(first.values())))
        left -= counts[part]
    return counts[TEST], counts[VAL]
