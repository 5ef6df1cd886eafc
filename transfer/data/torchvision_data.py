"""`torchvision:NAME`: the classification datasets of torchvision, with the parts that their authors made.

Which ones those are is read off their constructors: a `root`, no other argument that must be given, a target that is
one class; train, validation and test parts by `train=` or `split=`. Files lie in the cache directory under `datasets`
and are fetched by torchvision's own code, which checks them.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.data.listing import Content, Item, Listing
from transfer.data.split import TEST, TRAIN, VAL
from zoo.disk import cache_directory
from zoo.errors import SlimzooError, UsageError, did_you_mean
from zoo.image import load_image
from zoo.pretrained.download import FORBIDDEN, announce, is_offline, megabytes
from zoo.progress import Progress

PREFIX = "torchvision:"
# which their constructors do not tell: captions, boxes of faces, pairs of faces
NOT_CLASSES = {"SBU", "WIDERFace", "LFWPairs"}
SPLITS = {TRAIN: ("train", "trainval", "train-standard"), VAL: ("val", "valid"), TEST: ("test",)}
# not the same class when mirrored: characters and signs
WRITTEN = {"MNIST", "KMNIST", "QMNIST", "USPS", "SEMEION", "SVHN", "GTSRB", "Omniglot", "RenderedSST2"}


def torchvision_names() -> list[str]:
    """Every dataset that can be named."""
    from torchvision import datasets

    classes = {name: getattr(datasets, name) for name in datasets.__all__}
    return [PREFIX + name for name, found in sorted(classes.items()) if inspect.isclass(found) and not _refusal(found)]


def is_of_torchvision(source: object) -> bool:
    """Whether it names a dataset of torchvision's, and not a model of its: "torchvision:CIFAR10"."""
    if not str(source).startswith(PREFIX):
        return False
    from torchvision import datasets

    return str(source).removeprefix(PREFIX) in datasets.__all__


def list_torchvision(source: str, progress: Progress | None = None) -> Listing:
    """The parts of one dataset; it is fetched where it is not here.

    Raises:
        UsageError: no such dataset, one of another kind, or one that would have to be downloaded and may not be.
        SlimzooError: the download failed.
    """
    from torchvision import datasets

    name = source.removeprefix(PREFIX)
    made = getattr(datasets, name, None) if name in datasets.__all__ else None
    if not inspect.isclass(made):
        near = did_you_mean(source, torchvision_names(), f"known: {', '.join(torchvision_names())}")
        raise UsageError(f"torchvision has no dataset {name!r}: {near}")
    why = _refusal(made)
    if why:
        raise UsageError(f"{source} is no dataset of images with one class each: {why}")
    listing: Listing | None = None
    for part, arguments in _parts(made):
        dataset = _open(source, made, arguments, progress)
        if dataset is not None:
            one = _list(source, part, dataset)
            listing = one if listing is None else listing.with_part(one, part)
    if listing is None:
        raise SlimzooError(f"{source}: torchvision {made.__name__} has none of the parts train, val and test")
    return listing


def _refusal(made: type) -> str:
    """Why this class holds no labelled images of one class each; "" where it does."""
    arguments = inspect.signature(made).parameters
    needed = [
        name
        for name, argument in arguments.items()
        if argument.default is argument.empty and argument.kind == argument.POSITIONAL_OR_KEYWORD and name != "root"
    ]
    of_files = {"download", "train", "split"} & set(arguments) and "root" in arguments
    target = next((arguments[name].default for name in ("target_type", "target_types") if name in arguments), None)
    if made.__name__ in NOT_CLASSES or not of_files or target not in (None, "category", "full"):
        return "its targets are something else"
    if needed:
        return f"it wants {', '.join(needed)}"
    other_keywords = any(argument.kind == argument.VAR_KEYWORD for argument in arguments.values())
    if ("target_transform" not in arguments and not other_keywords) or ("transforms" in arguments and target is None):
        return "its targets are something else"
    return ""


def _parts(made: type) -> list[tuple[str, list[dict[str, Any]]]]:
    """(part, arguments that may make it) of each part; "" where the dataset has none."""
    arguments = inspect.signature(made).parameters
    if "train" in arguments:
        return [(TRAIN, [{"train": True}]), (TEST, [{"train": False}])]
    if "split" in arguments:
        return [(part, [{"split": value} for value in values]) for part, values in SPLITS.items()]
    return [("", [{}])]


def _open(source: str, made: type, choices: Sequence[dict[str, Any]], progress: Progress | None) -> Any:
    """The first of these that the dataset has, or None."""
    for arguments in choices:
        try:
            return _here_or_fetched(source, made, arguments, progress)
        except ValueError as error:
            if isinstance(error, UsageError) or "split" not in str(error):  # torchvision: "Unknown value for split"
                raise
    return None


def _here_or_fetched(source: str, made: type, arguments: dict[str, Any], progress: Progress | None) -> Any:
    parameters = inspect.signature(made).parameters
    fetches = "download" in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    root = cache_directory() / "datasets" / made.__name__
    root.mkdir(parents=True, exist_ok=True)
    try:
        return made(root, **arguments, **({"download": False} if "download" in parameters else {}))
    except (RuntimeError, OSError) as absent:  # what torchvision raises where the files are not there
        if not fetches or made.__name__ == "ImageNet":
            raise UsageError(f"{source} is not offered for download; put its files into {root} ({absent})") from absent
        if is_offline():
            raise UsageError(f"{source} is not on this machine and {FORBIDDEN}; it would lie in {root}") from None
    try:
        with _bars_become(source, progress):
            return made(root, **arguments, download=True)
    except (RuntimeError, OSError) as error:  # no network, a file of another hash, a full disk
        raise SlimzooError(f"{source} could not be fetched into {root}: {error}") from error


@contextlib.contextmanager
def _bars_become(source: str, progress: Progress | None) -> Iterator[None]:
    """Where torchvision would draw a bar for a file: its size is announced, then the command's own progress is told."""
    from torchvision.datasets import utils

    class Bar:
        def __init__(self, *_: object, total: int | None = None, **__: object) -> None:
            self.done, self.total = 0, total or 0
            announce(source, total)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, count: int) -> None:
            self.done += count
            if progress is not None and self.total:
                note = f"{megabytes(self.done)} of {megabytes(self.total)}"
                progress(f"downloading {source}", self.done // 1_000_000, -(-self.total // 1_000_000), note)

    theirs = utils.tqdm
    utils.tqdm = Bar
    try:
        yield
    finally:
        utils.tqdm = theirs


def _list(source: str, part: str, dataset: Any) -> Listing:
    files = _files(dataset)
    read_label = [label for _, label in files] if files else [dataset[i][1] for i in range(len(dataset))]
    if any(not isinstance(label, int | np.integer) for label in read_label):
        raise UsageError(f"{source} is no dataset of images with one class each: a target is {read_label[0]!r:.60}")
    names = _names(dataset)
    labels = [names[label] if 0 <= label < len(names) else str(label) for label in map(int, read_label)]
    prefix = f"{source}/{part}" if part else source

    def pixels(index: int) -> NDArray[np.uint8]:
        return np.array(dataset[index][0].convert("RGB"))

    def read(index: int, least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        return load_image(files[index][0], least=least) if files else pixels(index)

    def digest(index: int) -> str:
        if files:
            with files[index][0].open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        image = pixels(index)
        return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()

    def content(index: int) -> Content:
        return files[index][0] if files else None

    items = tuple(Item(f"{prefix}/{i}", label, part, digest(i)) for i, label in enumerate(labels))
    mirror = source.removeprefix(PREFIX) not in WRITTEN
    return Listing(name=source, items=items, read=read, content=content, mirror=mirror)


def _files(dataset: Any) -> list[tuple[Path, int]]:
    """(file, label) of each image where the dataset keeps such a list; else []: it is asked image by image."""
    pairs = [getattr(dataset, name, None) for name in ("samples", "_samples")]
    pairs += [
        list(zip(getattr(dataset, paths), dataset._labels, strict=False))
        for paths in ("_image_files", "_images")
        if hasattr(dataset, paths) and hasattr(dataset, "_labels")
    ]
    for found in pairs:
        if isinstance(found, list) and len(found) == len(dataset) > 0 and isinstance(found[0][0], str | Path):
            return [(Path(path), label) for path, label, *_ in found]
    return []


def _names(dataset: Any) -> list[str]:
    """Name the classes, each once."""
    given = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or []
    names = [", ".join(name) if isinstance(name, tuple | list) else str(name) for name in given]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
