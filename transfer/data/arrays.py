"""Images that are arrays already: .npz files and scikit-learn's digits."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.data.listing import PART_NAMES, Item, Listing
from zoo.errors import DataError


def list_digits() -> Listing:
    """1,797 handwritten digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 0..16 to 0..255
    return _list_arrays("digits", images, [str(label) for label in bunch.target], mirror=False)


def list_npz(path: Path) -> Listing:
    """`images` (N, H, W) or (N, H, W, 3) uint8 and `labels` (N,); `split` (N,) and `classes` (names of labels 0...) if
    you like."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
            split = archive["split"] if "split" in archive.files else None
            names = archive["classes"] if "classes" in archive.files else None
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: wanted the arrays 'images' and 'labels' ({error})") from error
    shape_is_right = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not shape_is_right or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: images {images.dtype} {images.shape} and labels {labels.shape}; wanted uint8 of shape (N, H, W) "
            "or (N, H, W, 3), and N labels"
        )
    return _list_arrays(str(path), images, _named(path, labels, names), parts=_parts(path, len(labels), split))


def _named(path: Path, labels: NDArray[Any], names: NDArray[Any] | None) -> list[str]:
    if names is None:
        return [str(label) for label in labels]
    if labels.dtype.kind not in "iu" or names.ndim != 1 or not ((labels >= 0) & (labels < len(names))).all():
        raise DataError(f"{path}: labels {labels.dtype} do not number the {names.size} names of 'classes' from 0")
    return [str(names[label]) for label in labels]


def _parts(path: Path, count: int, split: NDArray[Any] | None) -> list[str]:
    if split is None:
        return [""] * count
    given = [str(part).lower() for part in split.tolist()] if split.shape == (count,) else ["of another length"]
    wrong = next((part for part in given if part not in PART_NAMES), None)
    if wrong is not None:
        raise DataError(f"{path}: split {wrong!r}; wanted train, val or test for each of the {count} images")
    return [PART_NAMES[part] for part in given]


def _list_arrays(
    name: str,
    images: NDArray[np.uint8],
    class_names: Sequence[str],
    *,
    parts: Sequence[str] | None = None,
    mirror: bool = True,
) -> Listing:
    def read(index: int) -> NDArray[np.uint8]:
        image = images[index]
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image

    items = tuple(
        Item(f"{name}/{i}", class_name, part, hashlib.sha256(np.ascontiguousarray(images[i]).tobytes()).hexdigest())
        for i, (class_name, part) in enumerate(zip(class_names, parts or [""] * len(images), strict=True))
    )
    return Listing(name=name, items=items, read=read, content=lambda index: None, mirror=mirror)
