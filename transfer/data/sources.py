"""Sources of labelled images -> one index of (key, label, hash, part), whatever the source.

DATA is an image folder (`class/*.png`, or `train/ val/ test/` of those; transfer.data.layout), a delimited text or
Parquet file with the columns `path,label[,split]`, a Parquet file with the images inside, an .npz file, or a name:
`digits` (1,797 handwritten digits inside scikit-learn), `torchvision:NAME` (transfer.data.torchvision_data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer.data.arrays import list_digits, list_npz
from transfer.data.folder import list_folder
from transfer.data.layout import checked_layout
from transfer.data.listing import Ignored, Listing, Read
from transfer.data.options import LayoutName
from transfer.data.split import TEST, TRAIN, VAL
from transfer.data.tables import list_csv, list_parquet
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.lineage import BUILT_IN, IN_MEMORY
from zoo.preprocess import Preprocess
from zoo.progress import Progress

READERS = {".csv": list_csv, ".tsv": list_csv, ".txt": list_csv, ".parquet": list_parquet, ".npz": list_npz}
KINDS = ".csv, .tsv, .txt, .parquet or .npz file"


@dataclass(frozen=True, kw_only=True)
class Data:
    """One index over all images of a source.

    Attributes:
        name: what the user called it.
        classes: names, in the order of the label indices; written once, from the training part.
        keys: what names each image in messages: its path, or "digits/17".
        labels: (N,) class indices.
        hashes: SHA-256 of each file's bytes or of its pixels.
        parts: (N,) "train", "val" or "test".
        read: of images.
        mirror: whether a mirrored image is still of its class (False for digits).
        groups: equal for images that are alike, which are never divided; () where nobody has looked.
        notes: lines for a person on how the source was read.
        named: the parts that the source names itself.
        ignored: what is there beside the images, and was left out.
        prepared: (N, H, W, C) float32, of images that are tensors as a network takes them; `read` then only shows them.
        refit: whether what is written is trained on the validation images too, once all has been chosen by them.
    """

    name: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    hashes: tuple[str, ...]
    parts: NDArray[np.str_]
    read: Read
    mirror: bool = True
    groups: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    prepared: NDArray[np.float32] | None = None
    refit: bool = False

    def indices(self, part: str) -> NDArray[np.intp]:
        """Positions of the items of one part."""
        return np.flatnonzero(self.parts == part)

    def resized(self, index: int, preprocess: Preprocess) -> NDArray[np.uint8]:
        """(H, W, C) of one image, as a network takes it."""
        return preprocess.resize(self.read(index, preprocess.least))

    def whole(self) -> Data:
        """Train on the validation images too."""
        return replace(self, parts=np.where(self.parts == VAL, TRAIN, self.parts), refit=False)

    def sizes(self) -> dict[str, int]:
        return {part: int((self.parts == part).sum()) for part in (TRAIN, VAL, TEST)}

    def fingerprint(self) -> str:
        """Hash over every item's content, class and part: equal where and only where the experiment's data are."""
        lines = (
            f"{digest} {self.classes[label]} {part}\n"
            for digest, label, part in sorted(zip(self.hashes, self.labels.tolist(), self.parts.tolist(), strict=True))
        )
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]

    def __str__(self) -> str:
        """What messages and records say where a path would be."""
        return f"{IN_MEMORY}{self.name}"

    def record(self) -> dict[str, object]:
        """What a lineage record says of the data."""
        return {"name": self.name, "fingerprint": self.fingerprint(), "sizes": self.sizes()}


def list_source(
    source: str | Path, progress: Progress | None = None, *, layout: str = "auto", known: Collection[str] = ()
) -> Listing:
    """All images of a source, and all that is wrong with it.

    Args:
        layout: see transfer.data.layout; of a table or an archive, "classes" takes no parts from it, and "parts" wants
            some.
        known: the classes of a model that is to see these images.

    Raises:
        UsageError: nothing of that name; the near names are offered.
        DataError: no image at all, or a table that cannot be read.
    """
    path = Path(source)
    if path.is_dir() and str(source) not in BUILT_IN:
        return list_folder(path, layout, known)
    return _in_layout(_list_no_folder(source, progress), checked_layout(layout))


def _in_layout(listing: Listing, layout: LayoutName) -> Listing:
    if layout == "classes":
        items = tuple(replace(item, part="") for item in listing.items)
        return replace(listing, items=items, problems=tuple(p for p in listing.problems if p.kind != "split"))
    if layout == "parts" and not any(item.part for item in listing.items):
        raise DataError(f"{listing.name}: --layout parts, and it names no parts; a table does in a column `split`")
    return listing


def _list_no_folder(source: str | Path, progress: Progress | None) -> Listing:
    if str(source) == "digits":
        return list_digits()
    if str(source).startswith("torchvision:"):
        from transfer.data.torchvision_data import list_torchvision

        return list_torchvision(str(source), progress)
    path = Path(source)
    if path.is_file() and path.suffix.lower() in READERS:
        return READERS[path.suffix.lower()](path)
    raise no_dataset(source)


def is_dataset(source: str | Path) -> bool:
    """Whether there is something of a kind that is read; a dataset of torchvision's may still have to be downloaded."""
    path = Path(source)
    named = str(source) in BUILT_IN or str(source).startswith("torchvision:")
    return named or path.is_dir() or (path.is_file() and path.suffix.lower() in READERS)


def no_dataset(source: str | Path) -> UsageError:
    """What is said of a source that is none."""
    path = Path(source)
    if path.is_file():
        return UsageError(f"{path} is neither a folder of images nor a {KINDS}")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    wanted = f"wanted a folder, a {KINDS}, torchvision:NAME, or {', '.join(BUILT_IN)}"
    return UsageError(f"no dataset {str(source)!r}: {did_you_mean(path.name, [*BUILT_IN, *siblings], wanted)}")


def class_names(listing: Listing) -> tuple[str, ...]:
    """The class map: the names in the training part, sorted. Other parts are matched to it by name."""
    trained = {item.class_name for item in listing.items if item.part in ("", TRAIN)}
    return tuple(sorted(trained or {item.class_name for item in listing.items}))  # a source may be all test


def unknown_class(key: str, class_name: str, classes: tuple[str, ...]) -> str:
    """What is said of an image of a class that is not trained on."""
    near = did_you_mean(class_name, classes, f"take it out, or add training images; known: {', '.join(classes[:8])}")
    return f"{key}: class {class_name!r} is not among the training classes; {near}"


def index_listing(listing: Listing) -> Data:
    """The index, its parts still as the source gives them ("" where it is silent).

    Raises:
        DataError: the first of the listing's problems; no images; a class of the validation or test part that the
            training part does not have.
    """
    if listing.problems:
        raise DataError(listing.problems[0].message)
    if not listing.items:
        raise DataError(f"{listing.name}: no images")
    classes = class_names(listing)
    number = {class_name: i for i, class_name in enumerate(classes)}
    for item in listing.items:
        if item.class_name not in number:
            raise DataError(unknown_class(item.key, item.class_name, classes))
    return Data(
        name=listing.name,
        classes=classes,
        keys=tuple(item.key for item in listing.items),
        labels=np.array([number[item.class_name] for item in listing.items], dtype=np.int64),
        hashes=tuple(item.digest for item in listing.items),
        parts=np.array([item.part for item in listing.items], dtype="<U5"),
        read=listing.read,
        mirror=listing.mirror,
        notes=listing.notes,
        named=tuple(sorted({item.part for item in listing.items} - {""})),
        ignored=listing.ignored,
    )
