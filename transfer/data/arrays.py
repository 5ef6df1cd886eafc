"""Images that are arrays already: .npz files and scikit-learn's digits."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.data.listing import Item, Listing
from transfer.data.part_names import WANTED, part_and_rest, part_of
from transfer.data.split import TEST, TRAIN, VAL
from zoo.errors import DataError

IMAGES = ("images", "image", "imgs", "img", "x", "data", "pixels")  # what arrays are called, beside a part's name
LABELS = ("labels", "label", "y", "targets", "target")
ORDER = ("", TRAIN, VAL, TEST)


def list_digits() -> Listing:
    """1,797 handwritten digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 to 0..255
    return _list_arrays("digits", images, [str(label) for label in bunch.target], mirror=False)


def list_npz(path: Path) -> Listing:
    """`images` (N, H, W), (N, H, W, 1) or (N, H, W, 3) and `labels` (N,); `split` (N,) and `classes` (names of labels
    0...) if you like. Or a pair of them for each part, as Keras and MedMNIST call them: `x_train` and `y_train`,
    `test_images` and `test_labels`.

    Images are uint8, whole numbers from 0 to 255, or fractions from 0 to 1; labels may be (N, 1) or one-hot (N, K).
    """
    arrays = _opened(path)
    names = arrays.get("classes")
    pairs = _pairs(path, arrays)
    listings = [_list_pair(path, part, arrays, *pair, names) for part, pair in sorted(pairs.items(), key=_by_part)]
    return reduce(lambda one, other: one.with_part(other, other.items[0].part if other.items else ""), listings)


def _by_part(pair: tuple[str, tuple[str, str]]) -> int:
    return ORDER.index(pair[0])


def _opened(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise TypeError("it is one array")
            return {name: archive[name] for name in archive.files}
    except (ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: wanted the arrays 'images' and 'labels' ({error})") from error


def _pairs(path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[str, str]]:
    """part -> names of its images and its labels; the part is "" where the names say none."""
    found: dict[str, dict[bool, str]] = {}
    for name in arrays:
        part, _ = part_and_rest(name)
        words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
        kinds = {word in IMAGES for word in words if word in IMAGES + LABELS}
        if len(kinds) == 1:
            found.setdefault(part, {}).setdefault(kinds.pop(), name)
    pairs = {part: (names[True], names[False]) for part, names in found.items() if len(names) == 2}
    if "" in pairs and len(pairs) > 1:
        del pairs[""]
    half = [name for part, names in found.items() if part not in pairs for name in names.values() if part]
    if not pairs or half:
        listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(
            f"{path}: wanted the arrays 'images' and 'labels', or x_train and y_train (and the same of val and test); "
            f"found {listed}"
        )
    return pairs


def _list_pair(
    path: Path, part: str, arrays: dict[str, NDArray[Any]], image_name: str, label_name: str, names: NDArray[Any] | None
) -> Listing:
    images, labels = _squeezed(arrays[image_name]), _flat_labels(arrays[label_name])
    if images is None or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: {image_name} {arrays[image_name].dtype} {arrays[image_name].shape} and {label_name} "
            f"{arrays[label_name].shape}; wanted uint8 of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), and N labels"
        )
    pixels = _as_pixels(path, image_name, images)
    parts = [part] * len(labels) if part else _parts(path, len(labels), arrays.get("split"))
    name = f"{path}/{part}" if part else str(path)
    return _list_arrays(str(path), pixels, _named(path, labels, names), key=name, parts=parts)


def _squeezed(images: NDArray[Any]) -> NDArray[Any] | None:
    """(N, H, W) or (N, H, W, 3), channels last; None where it is nothing of the kind."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, -1)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    return images if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3) else None


def _as_pixels(path: Path, name: str, images: NDArray[Any]) -> NDArray[np.uint8]:
    """0..255; a fraction k/255 becomes k.

    Raises:
        DataError: values of which nobody can say which is black and which is white.
    """
    if images.dtype == np.uint8 or not images.size:
        return images.astype(np.uint8)
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    wanted = "wanted uint8, whole numbers from 0 to 255, or fractions from 0 to 1"
    if images.dtype.kind not in "iuf":
        raise DataError(f"{path}: {name} is of {images.dtype}; {wanted}")
    low, high = images.min(), images.max()
    if images.dtype.kind == "f" and 0 <= low and high <= 1:
        return np.round(images * 255).astype(np.uint8)
    if 0 <= low and high <= 255 and (images.dtype.kind != "f" or bool((images == np.round(images)).all())):
        return images.astype(np.uint8)
    raise DataError(f"{path}: {name} {images.dtype} {images.shape} from {low:g} to {high:g}; {wanted}")


def _flat_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """(N,) of (N, 1) and of one-hot (N, K); whole numbers of floats."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "iufb" and len(labels):
        one_hot = bool((((labels == 0) | (labels == 1)).all()) and (labels.sum(axis=1) == 1).all())
        labels = labels.argmax(axis=1) if one_hot else labels
    if labels.dtype.kind == "f" and labels.size and bool((labels == np.round(labels)).all()):
        labels = labels.astype(np.int64)
    return labels


def _named(path: Path, labels: NDArray[Any], names: NDArray[Any] | None) -> list[str]:
    if names is None:
        return [label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label) for label in labels]
    if labels.dtype.kind not in "iu" or names.ndim != 1 or not ((labels >= 0) & (labels < len(names))).all():
        raise DataError(f"{path}: labels {labels.dtype} do not number the {names.size} names of 'classes' from 0")
    return [str(names[label]) for label in labels]


def _parts(path: Path, count: int, split: NDArray[Any] | None) -> list[str]:
    if split is None:
        return [""] * count
    given = [str(part) for part in split.tolist()] if split.shape == (count,) else ["of another length"]
    wrong = next((part for part in given if not part_of(part)), None)
    if wrong is not None:
        raise DataError(f"{path}: split {wrong!r}; wanted {WANTED} for each of the {count} images")
    return [part_of(part) for part in given]


def _list_arrays(
    name: str,
    images: NDArray[np.uint8],
    class_names: Sequence[str],
    *,
    key: str | None = None,
    parts: Sequence[str] | None = None,
    mirror: bool = True,
) -> Listing:
    def read(index: int, least: object = None) -> NDArray[np.uint8]:
        image = images[index]
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image

    items = tuple(
        Item(f"{key or name}/{i}", label, part, hashlib.sha256(np.ascontiguousarray(images[i]).tobytes()).hexdigest())
        for i, (label, part) in enumerate(zip(class_names, parts or [""] * len(images), strict=True))
    )
    return Listing(name=name, items=items, read=read, content=lambda index: None, mirror=mirror)
