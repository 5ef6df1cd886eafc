"""Folders, tables and archives as people have them, each with what must be read from it, or why it is refused.

What must be read is written down by the one who lays the files out, (part, class) of every image, and never computed by
the reader. Used by tests/transfer/data/test_layouts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")
EACH = 3  # images of a class in a part
Counts = Mapping[tuple[str, str], int]  # (part, class) -> images; "" where the part is open


@dataclass(frozen=True)
class Case:
    """One source.

    Attributes:
        name: what it is.
        make: lays it out in a folder and gives DATA.
        counts: what must be read, or None where it must be refused.
        error: a regular expression that the refusal must match.
        said: regular expressions of lines that must be said where it is read.
        layout: of `--layout`.
    """

    name: str
    make: Callable[[Path], Path]
    counts: Counts | None = None
    error: str = ""
    said: tuple[str, ...] = ()
    layout: str = "auto"


class Pictures:
    """Tiny pictures of noise, each of them another one."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def array(self, *shape: int) -> np.ndarray:
        return self._rng.integers(0, 256, shape, dtype=np.uint8)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.array(5, 6, 3)).save(path)

    def folders(self, root: Path, *folders: str, each: int = EACH) -> Path:
        for folder in folders:
            for i in range(each):
                self.save(root / folder / f"{i}.png")
        return root


def cases(seed: int = 0) -> Iterator[Case]:
    """All of them; the pictures and the order of rows come from the seed."""
    pictures = Pictures(seed)
    yield from _parts(pictures)
    yield from _classes(pictures)
    yield from _doubtful(pictures)
    yield from _output_inside(pictures)
    yield from _tables(pictures, np.random.default_rng(seed))
    yield from _odd_tables(pictures)
    yield from _archives(pictures)


def even(*parts: str, classes: Sequence[str] = CLASSES, each: int = EACH) -> dict[tuple[str, str], int]:
    return {(part, name): each for part in parts for name in classes}


def _inside(*parts: str) -> list[str]:
    return [f"{part}/{name}" for part in parts for name in CLASSES]


def _parts(p: Pictures) -> Iterator[Case]:
    for names, parts in (
        (("train", "val", "test"), ("train", "val", "test")),
        (("train", "valid", "test"), ("train", "val", "test")),
        (("Train", "Test"), ("train", "test")),
        (("Training", "Testing"), ("train", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("TRAIN", "VALIDATION"), ("train", "val")),
        (("train", "dev", "test"), ("train", "val", "test")),
        (("train", "holdout"), ("train", "test")),
        (("train_data", "eval_data"), ("train", "val")),
        (("train2017", "val2017"), ("train", "val")),
        (("TrainingSet", "TestSet"), ("train", "test")),
        (("animals-train", "animals-test"), ("train", "test")),
        (("val", "test"), ("val", "test")),
        (("test",), ("test",)),
    ):
        said = r"(are parts|is a part).*, 3 classes"
        yield Case(" ".join(names), lambda root, n=names: p.folders(root, *_inside(*n)), even(*parts), said=(said,))
    yield Case(
        "images/train images/val",
        lambda root: p.folders(root, *_inside("images/train", "images/val")),
        even("train", "val"),
        said=("images/train/ and images/val/ are parts",),
    )
    yield Case(
        "train/images test/images",
        lambda root: p.folders(root, *_inside("train/images", "test/images")),
        even("train", "test"),
    )
    yield Case(
        "seg_train/seg_train seg_test/seg_test seg_pred",
        lambda root: p.folders(root, *_inside("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred"),
        even("train", "test"),
        said=("warning: .*seg_pred/ .*left out",),
    )
    yield Case(
        "cat/train cat/test",
        lambda root: p.folders(root, *[f"{name}/{part}" for name in CLASSES for part in ("train", "test")]),
        even("train", "test"),
        said=("inside each class are parts",),
    )
    yield Case(
        "train, and test without labels",
        lambda root: p.folders(root, *_inside("train"), "test"),
        even("train"),
        said=("warning: .*test/ holds images and no folders of classes",),
    )
    yield Case(
        "train test, and the same classes once more",
        lambda root: p.folders(root, *_inside("train", "test", "spare")),
        even("train", "test"),
        said=("warning: .*spare/ stands beside train/ and is left out",),
    )
    yield Case(
        "train as classes, on demand",
        lambda root: p.folders(root, *_inside("train", "test")),
        {("", "train"): 9, ("", "test"): 9},
        layout="classes",
    )


def _classes(p: Pictures) -> Iterator[Case]:
    vehicles = {("", name): EACH for name in ("bus", "car", "train")}
    yield Case("plain", lambda root: p.folders(root, *CLASSES), even(""), said=("cat/, dog/ and owl/ are classes",))
    yield Case(
        "yes no pred",
        lambda root: p.folders(root, "yes", "no", "pred"),
        even("", classes=("yes", "no", "pred")),
        said=("warning: .*pred/ is taken for a class by its place",),
    )
    yield Case("bus car train", lambda root: p.folders(root, "bus", "car", "train"), vehicles)
    yield Case(
        "bus car train/steam train/diesel",
        lambda root: p.folders(root, "bus", "car", "train/steam", "train/diesel"),
        {("", "bus"): EACH, ("", "car"): EACH, ("", "train"): 2 * EACH},
        said=("warning: .*train/ .*--layout parts",),
    )
    yield Case(
        "train/bus train/car train/train",
        lambda root: p.folders(root, "train/bus", "train/car", "train/train"),
        {("train", name): EACH for name in ("bus", "car", "train")},
    )
    yield Case(
        "photos/photos/cat",
        lambda root: p.folders(root, *_inside("photos/photos")),
        even(""),
        said=("are classes, in photos/photos/",),
    )
    yield Case("images/cat beside labels/*.txt", lambda root: _beside_labels(p, root), even(""))
    yield Case(
        "cat/images dog/images", lambda root: p.folders(root, "cat/images", "dog/images", "owl/images"), even("")
    )
    yield Case(
        "test_tube train_station",
        lambda root: p.folders(root, "test_tube", "train_station"),
        even("", classes=("test_tube", "train_station")),
    )
    yield Case(
        "animals/cat animals/dog things/bus",
        lambda root: p.folders(root, "animals/cat", "animals/dog", "things/bus"),
        {("", "animals"): 2 * EACH, ("", "things"): EACH},
    )


def _beside_labels(p: Pictures, root: Path) -> Path:
    (root / "labels").mkdir(parents=True)
    (root / "labels" / "1.txt").write_text("0 0.5 0.5 1 1")
    return p.folders(root, *_inside("images"))


def _doubtful(p: Pictures) -> Iterator[Case]:
    def scenes(root: Path) -> Path:
        return p.folders(root, *_inside("indoor", "outdoor"))

    either = "indoor/ and outdoor/ hold the same folders .*layout parts .*layout classes"
    yield Case("indoor outdoor", scenes, error=either)
    yield Case("indoor outdoor as classes", scenes, {("", "indoor"): 9, ("", "outdoor"): 9}, layout="classes")
    yield Case("indoor outdoor as one", scenes, even("", each=2 * EACH), layout="parts")
    yield Case(
        "train and test without classes",
        lambda root: p.folders(root, "train", "test"),
        error="are parts by name, and there are no folders of classes inside",
    )
    yield Case(
        "train/cat train/dog beside spare",
        lambda root: p.folders(root, "train/cat", "train/dog", "spare"),
        error="train/ could be a part .* or a class beside spare/",
    )
    yield Case(
        "one set a year",
        lambda root: p.folders(root, *_inside("2019", "2020", "2021")),
        error="2019/ and 2020/ hold the same folders",
    )
    yield Case(
        "images beside their table",
        lambda root: _flat_with_table(p, root),
        error=r"3 images and no folders of classes; .* or the table .*labels\.csv",
    )
    yield Case("images without folders", lambda root: p.folders(root, "."), error="3 images and no folders of classes")


def _flat_with_table(p: Pictures, root: Path) -> Path:
    p.folders(root, ".")
    (root / "labels.csv").write_text("path,label\n")
    return root


def _output_inside(p: Pictures) -> Iterator[Case]:
    def written(root: Path, *folders: str) -> Path:
        for folder in folders:
            p.folders(root, folder)
            (root / folder / "MANIFEST.sha256").write_text("")
        return p.folders(root, *CLASSES)

    def partial(root: Path) -> Path:
        p.folders(root, "mine.partial/checkpoints/step-1", "mine.partial")
        (root / "mine.partial" / "run.json").write_text("{}")
        return p.folders(root, *CLASSES)

    left = (r"was written by slimzoo and was left out",)
    yield Case("a model inside", lambda root: written(root, "mine"), even(""), said=left)
    yield Case("a model inside, called train", lambda root: written(root, "train"), even(""), said=left)
    yield Case("a folder of models inside", lambda root: written(root, "models/a", "models/b"), even(""), said=left)
    yield Case("findings inside a class", lambda root: written(root, "cat/findings"), even(""))
    yield Case("an interrupted run inside", partial, even(""), said=left)
    yield Case(
        "a model for data", lambda root: written(root, "mine") / "mine", error="what slimzoo wrote, and no dataset"
    )


def _tables(p: Pictures, rng: np.random.Generator) -> Iterator[Case]:
    """The same rows, written as many programs write them."""
    rows = [(f"img/{name}/{i}.png", name) for name in CLASSES for i in range(EACH)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    plain = "path,label\n" + "".join(f"{path},{name}\n" for path, name in rows)
    splits = ("Training", "Validation", "Testing")
    divided = "path,label,split\n" + "".join(f"{path},{name},{splits[int(path[-5])]}\n" for path, name in rows)
    parted = {(part, name): 1 for part in ("train", "val", "test") for name in CLASSES}
    wide = "path,cat,dog,owl\n" + "".join(f"{q},{','.join(str(int(n == c)) for c in CLASSES)}\n" for q, n in rows)
    for name, text, encoding, counts in (
        ("as it should be", plain, "utf-8", even("")),
        ("BOM and CRLF", plain.replace("\n", "\r\n"), "utf-8-sig", even("")),
        ("semicolons", plain.replace(",", ";"), "utf-8-sig", even("")),
        ("tabs", plain.replace(",", "\t"), "utf-8", even("")),
        ("carriage returns", plain.replace("\n", "\r"), "utf-8", even("")),
        ("bars", plain.replace(",", "|"), "utf-8", even("")),
        ("UTF-16 and tabs", plain.replace(",", "\t"), "utf-16", even("")),
        ("UTF-16 without a mark", plain, "utf-16-le", even("")),
        ("Path,Label", plain.replace("path,label", "Path,Label"), "utf-8", even("")),
        ("blanks after commas", plain.replace(",", ", "), "utf-8", even("")),
        ("blanks before commas", plain.replace(",", " ,"), "utf-8", even("")),
        ("a comma at the end", plain.replace("\n", ",\n"), "utf-8", even("")),
        ("empty rows", plain + ",\n\n,\n", "utf-8", even("")),
        ("backslashes", plain.replace("/", "\\"), "utf-8", even("")),
        ("no header", plain.partition("\n")[2], "utf-8", even("")),
        ("no header, with parts", divided.partition("\n")[2], "utf-8", parted),
        ("sep=;", "sep=;\n" + plain.replace(",", ";"), "utf-8", even("")),
        (
            "quotes",
            plain.replace("\n", '"\n').replace(",", '","').replace("img", '"img').replace("path", '"path'),
            "utf-8",
            even(""),
        ),
        ("filename,class", plain.replace("path,label", "filename,class"), "utf-8", even("")),
        ("Image ID,Category", plain.replace("path,label", "Image ID,Category"), "utf-8", even("")),
        ("label first", "target,file\n" + "".join(f"{n},{q}\n" for q, n in rows), "utf-8", even("")),
        (
            "an index column",
            ",path,label\n" + "".join(f"{i},{q},{n}\n" for i, (q, n) in enumerate(rows)),
            "utf-8",
            even(""),
        ),
        ("names of parts", divided, "utf-8", parted),
        ("data set", divided.replace("path,label,split", "filepaths,labels,data set"), "utf-8", parted),
        (
            "is_valid",
            "name,label,is_valid\n" + "".join(f"{q},{n},{q[-5] == '2'}\n" for q, n in rows),
            "utf-8",
            {(part, n): count for n in CLASSES for part, count in (("train", 2), ("val", 1))},
        ),
        ("one column a class", wide, "utf-8", even("")),
        ("cp1252", plain.replace(",cat", ",käse"), "cp1252", even("", classes=("käse", "dog", "owl"))),
        (
            "007 and 7",
            plain.replace(",cat", ",007").replace(",dog", ",7"),
            "utf-8",
            even("", classes=("007", "7", "owl")),
        ),
        (
            "a folder column",
            "folder,file,label\n" + "".join(f"img/{n},{q[-5:]},{n}\n" for q, n in rows),
            "utf-8",
            even(""),
        ),
        ("no extensions", plain.replace(".png", ""), "utf-8", even("")),
        ("from a folder beside it", plain.replace("img/", ""), "utf-8", even("")),
        ("./", plain.replace("img/", "./img/"), "utf-8", even("")),
    ):
        yield Case(f"CSV, {name}", lambda root, t=text, e=encoding: _table(p, root, t.encode(e)), counts)


def _table(p: Pictures, root: Path, content: bytes, name: str = "d.csv") -> Path:
    p.folders(root, *_inside("img"))
    (root / name).write_bytes(content)
    return root / name


def _odd_tables(p: Pictures) -> Iterator[Case]:
    for name, content, error in (
        ("empty", b"", "no images"),
        ("a header alone", b"path,label\n", "no images"),
        ("paths alone", b"path\nimg/cat/0.png\n", "no column label"),
        ("no column of images", b"size,label\nbig,cat\n", "no column path.*found 'size', 'label'"),
        ("two that could be labels", b"path,colour,shape\nimg/cat/0.png,red,round\n", "no column label.*'colour'"),
        ("a workbook", b"PK\x03\x04 and more", "an Excel workbook"),
        ("no text", b"path,label\n\x81\x8d,\x90\n", "neither in UTF-8 nor"),
        ("a comma in a label", b"path,label\nimg/cat/0.png,cat, black\n", "line 2: 3 cells, where there are 2 columns"),
        ("no label", b"path,label\nimg/cat/0.png,\n", "line 2: .*label ''; wanted both"),
        ("unknown part", b"path,label,split\nimg/cat/0.png,cat,exam\n", "line 2: split 'exam'; wanted train, val"),
        ("files that are not there", b"path,label\nC:\\pets\\1.png,cat\n", r"1\.png: No such file"),
    ):
        yield Case(f"CSV, {name}", lambda root, c=content: _table(p, root, c), error=error)
    exam = b"path,label,split\nimg/cat/0.png,cat,exam\nimg/dog/0.png,dog,\n"
    yield Case(
        "CSV, parts left alone on demand",
        lambda root: _table(p, root, exam),
        {("", "cat"): 1, ("", "dog"): 1},
        layout="classes",
    )
    tabs = "".join(f"img/{name}/{i}.png\t{name}\n" for name in CLASSES for i in range(EACH)).encode()
    yield Case("TSV", lambda root: _table(p, root, b"image\tlabel\n" + tabs, "d.tsv"), even(""))
    yield Case("TXT with blanks", lambda root: _table(p, root, tabs.replace(b"\t", b" "), "d.txt"), even(""))


def _archives(p: Pictures) -> Iterator[Case]:
    labels = np.arange(9) % 3
    grey, rgb = p.array(9, 5, 6), p.array(9, 5, 6, 3)
    numbers = even("", classes=("0", "1", "2"))
    keras = {"x_train": grey, "y_train": labels, "x_test": p.array(9, 5, 6), "y_test": labels[:, None]}
    medmnist = {
        f"{part}_{kind}": array
        for part in ("train", "val", "test")
        for kind, array in (("images", p.array(9, 5, 6, 3)), ("labels", labels[:, None]))
    }
    for name, arrays, counts in (
        ("grey", {"images": grey, "labels": labels}, numbers),
        ("(N, H, W, 1)", {"images": grey[..., None], "labels": labels}, numbers),
        ("(N, 3, H, W)", {"images": np.moveaxis(rgb, -1, 1), "labels": labels}, numbers),
        ("fractions", {"images": (rgb / 255).astype(np.float32), "labels": labels}, numbers),
        ("int64", {"X": rgb.astype(np.int64), "y": labels}, numbers),
        ("labels (N, 1)", {"images": rgb, "labels": labels[:, None]}, numbers),
        ("one-hot", {"images": rgb, "labels": np.eye(3)[labels]}, numbers),
        ("Keras", keras, even("train", "test", classes=("0", "1", "2"))),
        ("MedMNIST", medmnist, even("train", "val", "test", classes=("0", "1", "2"))),
    ):
        yield Case(f"npz, {name}", lambda root, a=arrays: _archive(root, a), counts)
    for name, arrays, error in (
        ("standardized", {"images": rgb / 64.0 - 2, "labels": labels}, "from -2 to .*wanted uint8"),
        ("16 bits", {"images": grey.astype(np.uint16) * 257, "labels": labels}, "uint16 .* to .*wanted uint8"),
        ("flat", {"images": grey.reshape(9, 30), "labels": labels}, r"\(9, 30\).*wanted uint8 of shape"),
        ("two labels an image", {"images": grey, "labels": np.ones((9, 3))}, r"labels \(9, 3\)"),
        ("no labels", {"images": grey}, r"found images \(9, 5, 6\)"),
        ("test without labels", {"x_train": grey, "y_train": labels, "x_test": grey}, "wanted the arrays"),
    ):
        yield Case(f"npz, {name}", lambda root, a=arrays: _archive(root, a), error=error)


def _archive(root: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "d.npz", **arrays)
    return root / "d.npz"
