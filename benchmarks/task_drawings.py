"""The drawings and digits of small_tasks.py: which picture of which package is of which class."""

from __future__ import annotations

import re
import struct
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from task_photographs import as_png
from task_sources import Picture, from_file, shared_data, unpacked

MODIFIERS = re.compile(r"-(1f3f[b-f]|fe0f|200d-(2640|2642|27a1))")  # skin tones, form, sex and direction
NOT_FOUND = re.compile("stylized_yoga|duck_yellow_ii")  # drawings of Open Clip Art that say no more than that
MOST_PIXELS = 16_000_000  # of a drawing: one has 623 million
PERSON = re.compile(r"^(1f468|1f469|1f9d1)(?=-200d)")  # a man, a woman, a person of some trade


def mnist() -> list[Picture]:
    """The first 10,000 digits of MNIST, 28 x 28."""
    with np.load(shared_data("mnist10k.npz")) as file:
        images, labels = file["images"], file["labels"]
    return [
        Picture(str(label), f"{i:05}.png", partial(as_png, image))
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def digits() -> list[Picture]:
    """The digits of scikit-learn, 8 x 8 in 17 levels of grey."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * (255 / 16)).round().astype(np.uint8)
    return [
        Picture(str(label), f"{i:04}.png", partial(as_png, image))
        for i, (image, label) in enumerate(zip(images, found.target, strict=True))
    ]


def emoji(styles: str, groups: Collection[str] = (), *, least: int = 0) -> list[Picture]:
    """Drawings of emoji of one style, or of two of which the first is trained on and the second kept back.

    The same emoji in another skin, sex, direction or style is of the same group.

    Args:
        styles: "google", or "google twitter".
        groups: names of Unicode's groups, whose subgroups are the classes; by default the classes are the nine folders
            of the shared data, which are the groups.
        least: how many emoji a class has at least; those of smaller ones are left out.
    """
    fine = _subgroups(groups) if groups or least else None
    parts = ("train", "test") if " " in styles else ("",)
    pictures = []
    for style, part in zip(styles.split(), parts, strict=True):
        for path in sorted(shared_data(f"emoji/{style}").rglob("*.png")):
            family = PERSON.sub("person", MODIFIERS.sub("", path.stem))
            label = path.parent.name if fine is None else fine.get(path.stem.replace("-fe0f", ""), "")
            if label:
                pictures.append(from_file(label, path, name=f"{style}-{path.name}", group=family, part=part))
    counts = Counter(picture.label for picture in pictures if picture.part in ("", "train"))
    return [picture for picture in pictures if counts[picture.label] >= least]


def _subgroups(groups: Collection[str]) -> dict[str, str]:
    """{code points in hexadecimal: subgroup} of Unicode's groups of these names, or of all."""
    found, group, subgroup = {}, "", ""
    table = unpacked("unicode-data") / "usr/share/unicode/emoji/emoji-test.txt"
    for line in table.read_text("utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ").replace(" & ", "-and-")
        elif ";" in line and (group in groups or not groups):
            found[line.partition(";")[0].strip().lower().replace(" ", "-").replace("-fe0f", "")] = subgroup
    return found


CLIPART = {  # folder of Open Clip Art: class
    "animals/birds": "bird",
    "animals/bugs": "bug",
    "animals/fish": "fish",
    "animals/mammals": "mammal",
    "buildings/homes": "home",
    "computer/hardware": "hardware",
    "food/beverages": "beverage",
    "food/desserts": "dessert",
    "food/fruit": "fruit",
    "people/clothing": "clothing",
    "plants/flowers": "flower",
    "recreation/music": "music",
    "recreation/sports": "sports",
    "signs_and_symbols/weather": "weather",
    "transportation/roadsigns": "road_sign",
}


def clipart() -> list[Picture]:
    """Open Clip Art of many hands, by subject. A series, an outline and its drawing have the beginning in common."""
    root = unpacked("openclipart-png") / "usr/share/openclipart/png"
    return [
        from_file(label, path, group=f"{label}/{re.split(r'[0-9]|_bw|_alt|_slice', path.stem)[0]}")
        for folder, label in CLIPART.items()
        for path in sorted((root / folder).glob("*.png"))
        if not NOT_FOUND.match(path.stem) and _pixels(path) <= MOST_PIXELS
    ]


def _pixels(png: Path) -> int:
    with png.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:])  # the header, which a PNG begins with
    return int(width * height)


def words() -> list[Picture]:
    """Drawings by which a game teaches words, all of one hand, by subject."""
    folder = unpacked("pysiogame") / "usr/share/games/pysiogame/res/images/art4apps"
    subjects = "animals body clothes_n_accessories construction food fruit_n_veg jobs sport transport".split()
    return [from_file(subject, path) for subject in subjects for path in sorted((folder / subject).iterdir())]


FURNITURE = {  # class: the last words of the names of Sweet Home 3D's objects
    "bed": "bed",
    "chair": "armchair chair stool",
    "door": "door",
    "switch": "plug switch",
    "lamp": "lamp lantern",
    "person": "boy female girl male",
    "plant": "bamboo hedge plant tree",
    "shelves": "bookcase cabinet shelves wardrobe",
    "sofa": "couch sofa",
    "table": "desk table",
    "vessel": "bottle cup glass vase",
    "window": "panes window",
}


def furniture() -> list[Picture]:
    """Rendered objects of a home, cut out, by what the last word of their name says they are."""
    classes = {word: label for label, words in FURNITURE.items() for word in words.split()}
    pictures = []
    for file in sorted((unpacked("sweethome3d-furniture") / "usr/share/sweethome3d/furniture").glob("*.sh3f")):
        with zipfile.ZipFile(file) as catalogue:
            table = catalogue.read("PluginFurnitureCatalog.properties").decode("latin-1")
            names, icons = (dict(re.findall(rf"^{key}#(\d+)=(.*?)\s*$", table, re.M)) for key in ("name", "icon"))
            for number, name in names.items():
                label = classes.get(re.sub(r"[^a-z ]", "", name.lower()).strip().rpartition(" ")[2])
                if label:
                    content = catalogue.read(icons[number].lstrip("/"))
                    pictures.append(Picture(label, f"{file.stem}-{number}.png", partial(bytes, content)))
    return pictures


SCRIPTS = """Armenian Bengali Devanagari Ethiopic Georgian Gujarati Gurmukhi Hebrew Kannada Khmer Lao Malayalam Myanmar
    Sinhala Tamil Telugu Thai"""
SHOWN, KEPT_BACK = 30, 50  # words of a script


def scripts() -> list[Picture]:
    """Letters of a writing system at random, to train on in a typeface without serifs, kept back in one with them."""
    folder = unpacked("fonts-noto-core") / "usr/share/fonts/truetype/noto"
    pictures = []
    for script in SCRIPTS.split():
        letters = _letters(script, [folder / f"Noto{face}{script}-Regular.ttf" for face in ("Sans", "Serif")])
        for face, part, count in (("Sans", "train", SHOWN), ("Serif", "test", KEPT_BACK)):
            for i in range(count):
                font = folder / f"Noto{face}{script}-Regular.ttf"
                read = partial(_written, font, letters, seed=[ord(c) for c in f"{script} {face} {i}"])
                pictures.append(Picture(script, f"{face.lower()}-{i:02}.png", read, part=part))
    return pictures


def _letters(script: str, fonts: Sequence[Path]) -> str:
    """Of the Basic Multilingual Plane, as Unicode names them, as far as all of these fonts have them."""
    named = re.compile(rf"{script.upper()} (SMALL LETTER|LETTER|SYLLABLE|CHARACTER|[A-Z]+$)")
    block = [chr(code) for code in range(0x370, 0x1800) if unicodedata.category(chr(code)) in ("Lo", "Ll")]
    letters = [letter for letter in block if named.match(unicodedata.name(letter, ""))]
    for font in fonts:
        face = ImageFont.truetype(str(font), 32)
        missing = bytes(face.getmask("\uffff"))  # the box that stands for a letter which is not there
        letters = [letter for letter in letters if bytes(face.getmask(letter)) != missing]
    return "".join(letters)


def _written(font: Path, letters: str, *, seed: list[int]) -> bytes:
    """A few letters, in dark on light or the other way round, of any size."""
    rng = np.random.default_rng(seed)
    face = ImageFont.truetype(str(font), int(rng.integers(28, 110)))
    text = "".join(rng.choice(list(letters), int(rng.integers(2, 6))))
    left, top, right, bottom = face.getbbox(text)
    margin = int(rng.integers(4, 24))
    shades = [tuple(int(c) for c in rng.integers(*limits, 3)) for limits in ((180, 256), (0, 90))]
    paper, ink = shades if rng.random() < 0.8 else shades[::-1]
    image = Image.new("RGB", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), paper)
    ImageDraw.Draw(image).text((margin - left, margin - top), text, fill=ink, font=face)
    return as_png(np.asarray(image))
