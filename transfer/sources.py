"""Sources of labelled images -> one index of (key, label, hash, part), whatever the source.

DATA is an image folder (`class/*.png`, or `train/ val/ test/` of those), a CSV file with the columns
`path,label[,split]`, an .npz file with `images` and `labels`, or the name `digits` (1,797 handwritten digits inside
scikit-learn).
"""

from __future__ import annotations

import csv
import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer.split import TEST, TRAIN, VAL
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.image import EXTENSIONS, load_image

BUILT_IN = ("digits",)
PART_NAMES = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}


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
        read: index -> (h, w, 3) uint8 RGB.
        mirror: whether a mirrored image is still of its class (False for digits).
    """

    name: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    hashes: tuple[str, ...]
    parts: NDArray[np.str_]
    read: Callable[[int], NDArray[np.uint8]]
    mirror: bool = True

    def indices(self, part: str) -> NDArray[np.intp]:
        """Positions of the items of one part."""
        return np.flatnonzero(self.parts == part)

    def sizes(self) -> dict[str, int]:
        return {part: int((self.parts == part).sum()) for part in (TRAIN, VAL, TEST)}

    def fingerprint(self) -> str:
        """Hash over every item's content, class and part: equal where and only where the experiment's data are."""
        lines = (
            f"{digest} {self.classes[label]} {part}\n"
            for digest, label, part in sorted(zip(self.hashes, self.labels.tolist(), self.parts.tolist(), strict=True))
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    def record(self) -> dict[str, object]:
        """What a lineage record says of the data."""
        return {"name": self.name, "fingerprint": self.fingerprint(), "sizes": self.sizes()}


def open_source(source: str | Path) -> Data:
    path = Path(source)
    if str(source) == "digits":
        return _digits()
    if path.is_dir():
        return _folder(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return _csv(path)
    if path.is_file() and path.suffix.lower() == ".npz":
        return _npz(path)
    if path.is_file():
        raise UsageError(f"{path} is neither a folder of images nor a .csv or .npz file")
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, [*BUILT_IN, *siblings], f"wanted a folder, a .csv, a .npz, or {', '.join(BUILT_IN)}")
    raise UsageError(f"no dataset {str(source)!r}: {near}")


def _index(
    name: str,
    items: Sequence[tuple[str, str, str, str]],
    read: Callable[[int], NDArray[np.uint8]],
    *,
    mirror: bool = True,
) -> Data:
    """From (key, class name, hash, part or "") of each item."""
    if not items:
        raise DataError(f"{name}: no images")
    trained = {class_name for _, class_name, _, part in items if part in ("", TRAIN)}
    classes = tuple(sorted(trained or {class_name for _, class_name, _, _ in items}))  # a source may be all test
    number = {class_name: i for i, class_name in enumerate(classes)}
    for key, class_name, _, part in items:
        if class_name not in number:
            near = did_you_mean(class_name, classes, "take it out, or add training images")
            raise DataError(f"{key}: class {class_name!r} of the {part} part is not among the training classes; {near}")
    return Data(
        name=name,
        classes=classes,
        keys=tuple(item[0] for item in items),
        labels=np.array([number[item[1]] for item in items], dtype=np.int64),
        hashes=tuple(item[2] for item in items),
        parts=np.array([item[3] for item in items], dtype="<U5"),
        read=read,
        mirror=mirror,
    )


def _digits() -> Data:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 to 0..255
    names = [str(label) for label in bunch.target]
    return _from_arrays("digits", images, names, mirror=False)


def _npz(path: Path) -> Data:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: wanted the arrays 'images' and 'labels' ({error})") from error
    shape_is_right = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not shape_is_right or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: images {images.dtype} {images.shape} and labels {labels.shape}; wanted uint8 of shape (N, H, W) "
            "or (N, H, W, 3), and N labels"
        )
    return _from_arrays(str(path), images, [str(label) for label in labels])


def _from_arrays(name: str, images: NDArray[np.uint8], class_names: Sequence[str], *, mirror: bool = True) -> Data:
    def read(index: int) -> NDArray[np.uint8]:
        image = images[index]
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image

    items = [
        (f"{name}/{i}", class_name, hashlib.sha256(np.ascontiguousarray(images[i]).tobytes()).hexdigest(), "")
        for i, class_name in enumerate(class_names)
    ]
    return _index(name, items, read, mirror=mirror)


def _folder(root: Path) -> Data:
    parts = {child.name: child for child in _folders(root) if child.name.lower() in PART_NAMES}
    trees = (
        [(PART_NAMES[name.lower()], tree) for name, tree in parts.items()] if "train" in map(str.lower, parts) else []
    )
    found: list[tuple[Path, str, str]] = []
    for part, tree in trees or [("", root)]:
        for folder in _folders(tree):
            files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and not _hidden(p, folder))
            if not files:
                raise DataError(
                    f"{folder}: a class without images ({', '.join(sorted(EXTENSIONS))}); fill it or remove it"
                )
            found += [(path, folder.name, part) for path in files]
    if not found:
        raise DataError(
            f"{root}: no images; wanted one folder a class with {', '.join(sorted(EXTENSIONS))} files inside, such as "
            f"{root / 'cat' / '1.jpg'}"
        )
    return _from_files(str(root), found)


def _folders(root: Path) -> list[Path]:
    return sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _csv(path: Path) -> Data:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error
    missing = {"path", "label"} - set(columns)
    if missing:
        raise DataError(f"{path}: no column {' or '.join(sorted(missing))}; wanted path,label and, if you like, split")
    found = []
    for number, row in enumerate(rows, start=2):
        part, label = ((row.get(column) or "").strip() for column in ("split", "label"))
        if part and part.lower() not in PART_NAMES:
            raise DataError(f"{path}, line {number}: split {part!r}; wanted train, val or test")
        if not row["path"] or not label:
            raise DataError(f"{path}, line {number}: path {row['path']!r}, label {label!r}; wanted both")
        found.append((path.parent / row["path"], label, PART_NAMES.get(part.lower(), "")))
    named = Counter(bool(part) for _, _, part in found)
    if len(named) == 2:
        raise DataError(
            f"{path}: {named[False]} of {len(found)} rows have no split; fill the column for all or for none"
        )
    return _from_files(str(path), found)


def _from_files(name: str, found: Sequence[tuple[Path, str, str]]) -> Data:
    paths = [path for path, _, _ in found]
    items = []
    for path, class_name, part in found:
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; listed in {name}") from error
        items.append((str(path), class_name, digest, part))
    return _index(name, items, lambda index: load_image(paths[index]))
