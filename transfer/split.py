"""Stratified, leak-free splits: each class is divided in the same shares, and equal images stay on one side."""

from __future__ import annotations

from collections.abc import Sequence

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
    hashes: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> NDArray[np.str_]:
    """Assign each item to "train", "val" or "test", class by class.

    A class of n images gives round(n x share) to each part asked for, the rest to train, and at least 1 to each.

    Args:
        labels: class index of each item.
        val, test: shares in [0, 1); 0 makes no such part.
        seed: of `numpy.random.default_rng`, which draws one permutation a class, in class order.
        hashes: content hash of each item; items of equal content and label go to the same part.
        classes: names for messages.

    Returns:
        (N,) array of part names.

    Raises:
        UsageError: the shares leave nothing for training.
        DataError: a class has fewer images than there are parts.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(
            f"val={val} and test={test} must be shares from 0 to below 1 that leave something for training"
        )
    labels_array = np.asarray(labels)
    rng = np.random.default_rng(seed)
    parts = np.full(len(labels_array), TRAIN, dtype="<U5")
    wanted = 1 + (val > 0) + (test > 0)
    for label in range(int(labels_array.max(initial=-1)) + 1):
        members = np.flatnonzero(labels_array == label)
        groups = _groups(members, hashes)
        if len(groups) < wanted:
            name = classes[label] if classes is not None else str(label)
            images = "1 distinct image" if len(groups) == 1 else f"{len(groups)} distinct images"
            raise DataError(
                f"class {name!r} has {images}; a split into {wanted} parts wants at least {wanted}: "
                "add images, take the class out, or give less to --val and --test"
            )
        order = rng.permutation(len(groups))
        n_test, n_val = (max(1, round(len(groups) * share)) if share > 0 else 0 for share in (test, val))
        n_test = min(n_test, len(groups) - 1 - (val > 0))
        n_val = min(n_val, len(groups) - 1 - n_test)
        for part, chosen in ((TEST, order[:n_test]), (VAL, order[n_test : n_test + n_val])):
            for group in chosen:
                parts[groups[group]] = part
    return parts


def _groups(members: NDArray[np.intp], hashes: Sequence[str] | None) -> list[NDArray[np.intp]]:
    if hashes is None:
        return [members[i : i + 1] for i in range(len(members))]
    by_hash: dict[str, list[int]] = {}
    for member in members:
        by_hash.setdefault(hashes[member], []).append(int(member))
    return [np.array(group) for group in by_hash.values()]
