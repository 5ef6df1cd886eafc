"""Sources of labelled images -> one index of (key, label, hash, part), whatever the source.

DATA is an image folder (`class/*.png`, or `train/ val/ test/` of those), a CSV file with the columns
`path,label[,split]`, an .npz file with `images` and `labels`, or the name `digits` (1,797 handwritten digits inside
scikit-learn).
"""

from __future__ import annotations

import csv
import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.split import TEST, TRAIN, VAL, stratified_split
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


def open_data(
    source: str | Path, *, val: float | str | None = None, test: float | str | None = None, seed: int = 0
) -> Data:
    """Open a dataset and decide what is trained on, chosen by, and tested on.

    Args:
        source: see the module's docstring.
        val, test: a share to split off (0 for none), or another folder or file that is this part. By default the parts
            that the source itself names, else 20% each.
        seed: of the split. Built-in data ignore it: their split is fixed (seed 0, 60/20/20).

    Raises:
        UsageError: nothing of that name; the near names are offered.
        DataError: no images, one class, a class too small to split, an unknown class in the test part.
    """
    if str(source) in BUILT_IN:
        return _split(_open(source), val=_share(val), test=_share(test), seed=0)
    data = _open(source)
    if len(data.classes) < 2:
        raise DataError(f"{source}: one class, {data.classes[0]!r}; wanted at least two folders of images, one a class")
    extra = [(part, _open(str(value))) for part, value in ((VAL, val), (TEST, test)) if _is_source(value)]
    for part, other in extra:
        data = _append(data, other, part)
    shares = {VAL: _share(val), TEST: _share(test)}
    return _split(data, val=shares[VAL], test=shares[TEST], seed=seed)


def open_labelled(source: str | Path, classes: Sequence[str]) -> Data:
    """Open a dataset whole, as one "test" part, its labels numbered as in `classes`: new data for a finished model.

    Raises:
        DataError: a class that the model does not know.
    """
    return _as_part(_open(source), tuple(classes), TEST)


def reopen(lineage: Sequence[dict[str, Any]], source: str | Path | None = None) -> Data | None:
    """The data that a model was fitted to, with the same parts; None if there was no fit, or they cannot be opened.

    Args:
        lineage: the model's records.
        source: None for the data of the last fit; otherwise only a fit to this source counts.

    Raises:
        DataError: `source` is what the model was fitted to, and its images are no longer the same.
    """
    for step in reversed(lineage):
        fitted = step["arguments"]
        if step["verb"] == "fit" and (source is None or _same_source(str(source), fitted["data"])):
            try:
                data = open_data(fitted["data"], val=fitted["val"], test=fitted["test"], seed=fitted["seed"])
            except (UsageError, DataError):
                return None
            if data.fingerprint() == step["data"]["fingerprint"]:
                return data
            if source is None:
                return None
            raise DataError(
                f"{source} has changed since the model was fitted to it: another split would test on images that were "
                "trained on; bring the images back, or fit again"
            )
    return None


def open_for(lineage: Sequence[dict[str, Any]], source: str | Path, classes: Sequence[str] | None) -> Data:
    """Data to go on training, calibrating and measuring a fitted model with: same classes, same parts as in its fit.

    Raises:
        UsageError: the data have other classes than the model.
    """
    data = reopen(lineage, str(source)) or open_data(source)
    if classes is None or data.classes != tuple(classes):
        known = "none that it names" if classes is None else f"{len(classes)}: {', '.join(list(classes)[:4])}"
        raise UsageError(
            f"{source} has {len(data.classes)} classes ({', '.join(data.classes[:4])}), the model has {known}; "
            f"`slimzoo fit {source}` first"
        )
    return data


def _same_source(one: str, other: str) -> bool:
    return one == other or (
        one not in BUILT_IN and other not in BUILT_IN and os.path.realpath(one) == os.path.realpath(other)
    )


def _is_source(value: float | str | None) -> bool:
    return isinstance(value, str) and _number(value) is None


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _share(value: float | str | None) -> float | None:
    return _number(value) if isinstance(value, str) else value


def _open(source: str | Path) -> Data:
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


def _as_part(data: Data, classes: tuple[str, ...], part: str) -> Data:
    """All of `data` as one part, its labels renumbered by name to the order of `classes`."""
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        near = did_you_mean(unknown[0], classes, f"known: {', '.join(classes[:8])}")
        raise DataError(f"{data.name}: class {unknown[0]!r} is not among the training classes; {near}")
    number = np.array([classes.index(name) for name in data.classes])
    parts = np.full(len(data.keys), part, dtype="<U5")
    return replace(data, classes=classes, labels=number[data.labels], parts=parts)


def _append(data: Data, other: Data, part: str) -> Data:
    """`data` with all of `other` as one more part, classes matched by name."""
    other = _as_part(other, data.classes, part)
    size = len(data.keys)
    first, second = data.read, other.read
    return replace(
        data,
        keys=data.keys + other.keys,
        labels=np.concatenate([data.labels, other.labels]),
        hashes=data.hashes + other.hashes,
        parts=np.concatenate([data.parts, other.parts]),
        read=lambda index: first(index) if index < size else second(index - size),
    )


def _split(data: Data, *, val: float | None, test: float | None, seed: int) -> Data:
    """Fill in the parts that the source leaves open; a part that the source names is kept."""
    given = {part for part in (TRAIN, VAL, TEST) if (data.parts == part).any()}
    named = bool(given & {TRAIN})  # the source said what is trained on: nothing but validation is taken from it
    default_test = 0.0 if named or TEST in given else 0.2
    shares = {
        VAL: 0.0 if VAL in given else (0.2 if val is None else val),
        TEST: 0.0 if TEST in given else (default_test if test is None else test),
    }
    free = np.flatnonzero((data.parts == "") | (data.parts == TRAIN))
    if not len(free):
        raise DataError(f"{data.name}: no training images; all are of the parts {', '.join(sorted(given))}")
    parts = data.parts.copy()
    parts[free] = stratified_split(
        data.labels[free].tolist(),
        val=shares[VAL],
        test=shares[TEST],
        seed=seed,
        hashes=[data.hashes[i] for i in free],
        classes=data.classes,
    )
    return replace(data, parts=parts)
