"""What a model is trained on, chosen by and tested on: the parts of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer.data.duplicates import find_duplicates, group_ids
from transfer.data.folder import class_folders, list_images
from transfer.data.listing import Listing
from transfer.data.sources import Data, class_names, index_listing, list_source
from transfer.data.split import TEST, TRAIN, VAL, check_shares, stratified_split
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.lineage import BUILT_IN
from zoo.progress import Progress

VAL_SHARE = 0.2
BUILT_IN_SHARE = 0.2  # of validation and test each
FEW_IMAGES = 1000  # to train on and choose by: they all train in the end, and choose another recipe, tail and criterion


def open_data(
    source: str | Path,
    *,
    val: float | str | None = None,
    test: float | str | None = None,
    seed: int = 0,
    layout: str = "auto",
    known: Collection[str] = (),
    progress: Progress | None = None,
) -> Data:
    """Open a dataset and decide what is trained on, chosen by, and tested on.

    Images that are alike, down to recompressed, resized and mirrored ones, are on the same side of every split made
    here, whatever their labels; see transfer.data.duplicates, also for the small images of which only equal ones count.
    For this, each image is decoded once, and what it gave is kept in the cache.

    Args:
        source: see transfer.data.sources.
        val, test: a share to split off (0.2 or "20%"; 0 for none), or another folder or file that is this part. By
            default the parts that the source itself names; of others no test part, and 20% for validation, which of a
            small dataset are trained on too in the end (`Data.refit`).
        seed: of the split. Built-in data ignore it: their split is fixed (seed 0, 60/20/20, equal images together).
        layout: "auto", "parts" or "classes": what the folders of an image folder are; see transfer.data.layout.
        known: the classes of a model that is to see these images.
        progress: told how far the download and the search for duplicates are.

    Raises:
        UsageError: nothing of that name; the near names are offered. A share of a part that the source names itself.
        DataError: no images, one class, a class too small to split, an unknown class in the test part.
    """
    check_shares(share_of(val) or 0.0, share_of(test) or 0.0)  # as far as they are given, before anything is listed
    if str(source) in BUILT_IN:
        data = index_listing(list_source(source, layout=layout))
        return divide(data, list(data.hashes), *shares_for(source, val, test), seed=0)
    data = index_listing(gather(source, val=val, test=test, layout=layout, known=known, progress=progress))
    if len(data.classes) < 2:
        raise DataError(
            f"{source}: one class, {data.classes[0]!r}; wanted at least two folders of images, one for each class"
        )
    shares = shares_for(source, val, test)
    alike = groups_for(data, *shares, progress)
    return divide(data, alike, *shares, seed=seed)


def gather(
    source: str | Path,
    *,
    val: float | str | None,
    test: float | str | None,
    layout: str = "auto",
    known: Collection[str] = (),
    progress: Progress | None = None,
) -> Listing:
    """The source, and the other sources that are its validation and test parts, as one listing."""
    listing = list_source(source, progress, layout=layout, known=known)
    for part, value in ((VAL, val), (TEST, test)):
        if isinstance(value, str) and share_of(value) is None:
            theirs = known or {item.class_name for item in listing.items}
            listing = listing.with_part(list_source(value, progress, known=theirs), part)
    return listing


def open_labelled(
    source: str | Path,
    classes: Sequence[str],
    *,
    val: float | str | None = None,
    test: float | str | None = None,
    layout: str = "auto",
    known_only: bool = False,
) -> Data:
    """Open a dataset whole, as one "test" part, its labels numbered as in `classes`: new data for a finished model.

    Args:
        val, test: other sources that belong to it, see `open_data`; shares say nothing here.
        known_only: leave out the images of other classes, and say so, where they are refused otherwise.

    Raises:
        DataError: a class that the model does not know.
    """
    listing = gather(source, val=val, test=test, layout=layout, known=classes)
    strange = Counter(item.class_name for item in listing.items if item.class_name not in classes)
    if strange and known_only:
        listing = _without(listing, strange)
    elif strange:
        name = sorted(strange)[0]
        near = did_you_mean(name, classes, f"known: {', '.join(classes[:8])}")
        raise DataError(
            f"{listing.name}: class {name!r} is not among the training classes; {near}; --known-only measures on those "
            "that are"
        )
    whole = replace(listing, items=tuple(replace(item, part=TEST) for item in listing.items))
    return renumbered(index_listing(whole), tuple(classes))


def _without(listing: Listing, strange: Counter[str]) -> Listing:
    """Without the images of these classes."""
    kept = [i for i, item in enumerate(listing.items) if item.class_name not in strange]
    if not kept:
        raise DataError(f"{listing.name}: not one image of a class that the model knows")
    said = ", ".join(f"{name} ({count})" for name, count in strange.most_common(4)) + (", ..." * (len(strange) > 4))
    left = (
        f"{listing.name}: {sum(strange.values())} images of classes that the model does not know are left out: {said}"
    )
    return replace(
        listing,
        items=tuple(listing.items[i] for i in kept),
        read=lambda index, least=None: listing.read(kept[index], least),
        content=lambda index: listing.content(kept[index]),
        notes=(*listing.notes, left),
    )


def open_unlabelled(source: str | Path, *, most: int, seed: int = 0) -> Data:
    """Some of a dataset's images, whatever their labels, as one "train" part; a folder needs none of a class's name.

    Args:
        source: see transfer.data.sources; where it names a training part, that alone.
        most: how many images; by chance, by `seed`, where there are more.

    Raises:
        UsageError: nothing of that name.
        DataError: no images.
    """
    path = Path(source)
    data = index_listing(list_images(path, most=most, seed=seed) if path.is_dir() else list_source(source))
    free = free_images(data)
    indices = free if len(free) else np.arange(len(data.keys))
    return some(data, np.random.default_rng(seed).permutation(indices)[:most], TRAIN)


def class_names_of(source: str | Path, known: Collection[str] = ()) -> tuple[str, ...]:
    """The classes of a dataset, of which no image is opened; () of a folder of plain images."""
    path = Path(source)
    return class_folders(path, known) if path.is_dir() else class_names(list_source(source))


def share_of(value: float | str | None) -> float | None:
    """What of --val or --test is a share, "20%" too; None where it is not given, or names a source."""
    if not isinstance(value, str):
        return value
    number = value.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        return None


def shares_for(
    source: str | Path, val: float | str | None, test: float | str | None
) -> tuple[float | None, float | None]:
    """The shares of --val and --test, None where nothing is said of them; of built-in data, those of their own."""
    if str(source) in BUILT_IN:
        val, test = (BUILT_IN_SHARE if given is None else given for given in (val, test))
    return share_of(val), share_of(test)


def some(data: Data, indices: NDArray[np.intp], part: str) -> Data:
    """Take these images alone, as one part."""
    chosen = indices.tolist()
    return replace(
        data,
        keys=tuple(data.keys[i] for i in chosen),
        labels=data.labels[indices],
        hashes=tuple(data.hashes[i] for i in chosen),
        parts=np.full(len(chosen), part, dtype="<U5"),
        read=lambda index, least=None: data.read(chosen[index], least),
        groups=tuple(data.groups[i] for i in chosen) if data.groups else (),
        prepared=None if data.prepared is None else data.prepared[indices],
    )


def open_shares(data: Data, val: float | None, test: float | None) -> dict[str, float]:
    """What share each part takes from the images that are free, 0 where it is there already.

    Nothing but validation is taken by default.

    Raises:
        UsageError: a share of a part that is there already.
    """
    given = {part for part in (TRAIN, VAL, TEST) if (data.parts == part).any()}
    for part, share in ((VAL, val), (TEST, test)):
        if part in given and share is not None:
            raise UsageError(
                f"--{part} {share:g}: {data.name} names its {part} part itself, {int((data.parts == part).sum())} "
                f"images; leave --{part} out, or name another folder or file that is this part"
            )
    shares = {
        VAL: 0.0 if VAL in given else (VAL_SHARE if val is None else val),
        TEST: 0.0 if TEST in given else (test or 0.0),
    }
    check_shares(shares[VAL], shares[TEST])
    return shares


def free_images(data: Data) -> NDArray[np.intp]:
    """Positions of the images of which parts may be made."""
    return np.flatnonzero((data.parts == "") | (data.parts == TRAIN))


def groups_for(
    data: Data, val: float | None, test: float | None, progress: Progress | None = None
) -> Sequence[Hashable]:
    """A group for each image, equal where images are alike; by hash alone where no part is to be made."""
    if not any(open_shares(data, val, test).values()):
        return data.hashes
    free = free_images(data)
    pairs = find_duplicates(
        [data.hashes[i] for i in free], lambda i, least=None: data.read(int(free[i]), least), progress=progress
    )
    groups: list[Hashable] = list(range(len(data.keys)))
    for position, first in zip(free.tolist(), group_ids(len(free), pairs), strict=True):
        groups[position] = int(free[first])
    return groups


def divide(data: Data, groups: Sequence[Hashable], val: float | None, test: float | None, *, seed: int) -> Data:
    """Fill in the parts that the source leaves open; a part that the source names is kept."""
    free = free_images(data)
    if not len(free):
        given = sorted(set(data.parts.tolist()))
        raise DataError(
            f"{data.name}: no training images; all are of the parts {', '.join(given)}; add a part to train on"
        )
    shares = open_shares(data, val, test)
    parts = data.parts.copy()
    parts[free] = stratified_split(
        data.labels[free].tolist(),
        val=shares[VAL],
        test=shares[TEST],
        seed=seed,
        groups=[groups[i] for i in free],
        classes=data.classes,
    )
    refit = val is None and shares[VAL] > 0 and len(free) <= FEW_IMAGES
    return replace(data, parts=parts, groups=tuple(map(str, groups)), refit=refit)


def renumbered(data: Data, classes: tuple[str, ...]) -> Data:
    """Number the labels in the order of `classes`, among which all of the data's own are."""
    number = np.array([classes.index(name) for name in data.classes])
    return replace(data, classes=classes, labels=number[data.labels])
