"""Many small tasks of classifying images, to choose a recipe on; a claim rests on the mean over all of them.

    python benchmarks/small_tasks.py --list
    python benchmarks/small_tasks.py --out FOLDER [--seed N] [NAME...]

A task is made as an image folder, FOLDER/NAME/train/CLASS/* and FOLDER/NAME/test/CLASS/*. What is in test/ is kept
back: whatever chooses or trains never sees it. A seed is a division into the two (see task_division.py).

The pictures come from Debian's packages, fetched by `apt-get download` and kept unpacked in slimzoo's cache, from
scikit-learn, and from the data that tests share (SLIMZOO_DATA). They are as their authors encoded them, but for pieces
cut out of photographs (JPEG of quality 95). A task whose source is not to be had is said to be not here.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import task_drawings as drawings
import task_photographs as photographs
from PIL import Image
from task_division import Task, divide
from task_sources import DEBIAN, NotHere

NOTO, TWEMOJI, SHARED = "Apache-2.0 (Noto)", "CC-BY-4.0 (Twemoji)", "shared data"
TABLE = "unicode-data"  # Unicode's table of emoji
TASKS = (
    Task(
        name="things",
        kind="photograph",
        about="animals, food, tools and other things, cut out or before what was behind them",
        licence="GPL-2 (Tux Paint); by photograph CC-BY, CC-BY-SA, GFDL, GPL-3+, CC0 or public domain (GCompris)",
        sources=("tuxpaint-stamps-default", "gcompris-qt-data"),
        pictures=photographs.things,
        train=12,
        share=0.45,
    ),
    Task(
        name="landscapes",
        kind="photograph",
        about="places by what was photographed, 720 x 360",
        licence="by photograph public domain, CC-BY-4.0, CC-BY-SA-3.0 or CC-BY-SA-4.0",
        sources=("endless-sky-data",),
        pictures=photographs.landscapes,
        train=12,
        share=0.45,
    ),
    Task(
        name="astronomy",
        kind="photograph",
        about="galaxies, nebulae and star clusters by kind",
        licence="GPL-2+; by photograph CC-BY-3.0, public domain or free with credit",
        sources=("stellarium-data",),
        pictures=photographs.astronomy,
        train=20,
        share=0.4,
    ),
    Task(
        name="materials",
        kind="photograph",
        about="surfaces by material",
        licence="GPL-2+; some CC-BY-3.0, CC-BY-SA-3.0 or public domain",
        sources=("ufoai-textures",),
        pictures=photographs.materials,
        train=16,
        share=0.45,
        recoloured=True,
    ),
    Task(
        name="garments",
        kind="photograph",
        about="Fashion-MNIST, 28 x 28, grey",
        licence="MIT",
        sources=("dataset-fashion-mnist",),
        pictures=photographs.garments,
        train=40,
        keep=100,
    ),
    Task(
        name="wallpapers",
        kind="photograph",
        about="which photograph is this a piece of, of 31",
        licence="LGPL-3 (Plasma), GPL-2+ (MATE), LGPL-2.1+ (LXQt)",
        sources=("plasma-workspace-wallpapers", "mate-backgrounds", "lxqt-themes"),
        pictures=photographs.wallpapers,
        train=8,
    ),
    Task(
        name="views",
        kind="photograph",
        about="which photograph is this a large piece of, of 14",
        licence="by photograph CC-BY-4.0, CC-BY-SA-3.0, CC-BY-SA-4.0 or CC0-1.0",
        sources=("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"),
        pictures=photographs.views,
        train=5,
    ),
    Task(
        name="samples",
        kind="photograph",
        about="which of 18 photographs and scans is this a piece of, 64 x 64",
        licence="BSD-3-Clause; by picture CC0-1.0, public domain or CC-BY-2.0",
        sources=("python3-skimage", "scikit-learn"),
        pictures=photographs.samples,
        train=6,
    ),
    Task(
        name="paintings",
        kind="scan",
        about="which painting or print is this piece of a jigsaw puzzle of",
        licence="GPL-3+ (photographs of paintings in the public domain)",
        sources=("gcompris-qt-data",),
        pictures=photographs.paintings,
        train=6,
        share=0.4,
    ),
    Task(
        name="mnist-ten",
        kind="digits",
        about="MNIST, ten of each digit",
        licence="MIT",
        sources=(SHARED,),
        pictures=drawings.mnist,
        train=10,
        keep=100,
    ),
    Task(
        name="digits",
        kind="digits",
        about="digits scanned at 8 x 8",
        licence="BSD-3-Clause",
        sources=("scikit-learn",),
        pictures=drawings.digits,
        train=20,
        keep=100,
    ),
    Task(
        name="emoji",
        kind="drawing",
        about="emoji in nine groups, from one style to another",
        licence=f"{NOTO}, {TWEMOJI}",
        sources=(SHARED,),
        pictures=partial(drawings.emoji, "google twitter"),
        train=20,
        keep=100,
    ),
    Task(
        name="emoji-fine",
        kind="drawing",
        about="emoji in all subgroups of fourteen and more, from one style to another",
        licence=f"{NOTO}, {TWEMOJI}",
        sources=(SHARED, TABLE),
        pictures=partial(drawings.emoji, "google twitter", least=14),
        train=12,
    ),
    Task(
        name="emoji-nature",
        kind="drawing",
        about="emoji of animals and plants by kind, one style",
        licence=NOTO,
        sources=(SHARED, TABLE),
        pictures=partial(drawings.emoji, "google", ("Animals & Nature",)),
        train=10,
        share=0.4,
    ),
    Task(
        name="emoji-objects",
        kind="drawing",
        about="emoji of objects and food by use, one style",
        licence=TWEMOJI,
        sources=(SHARED, TABLE),
        pictures=partial(drawings.emoji, "twitter", ("Objects", "Food & Drink"), least=6),
        train=8,
        share=0.4,
    ),
    Task(
        name="emoji-travel",
        kind="drawing",
        about="emoji of vehicles, places and the sky, from the other style to the one",
        licence=f"{TWEMOJI}, {NOTO}",
        sources=(SHARED, TABLE),
        pictures=partial(drawings.emoji, "twitter google", ("Travel & Places",), least=6),
        train=12,
    ),
    Task(
        name="clipart",
        kind="drawing",
        about="clip art of many hands by subject",
        licence="public domain",
        sources=("openclipart-png",),
        pictures=drawings.clipart,
        train=12,
        share=0.4,
    ),
    Task(
        name="words",
        kind="drawing",
        about="drawings of one hand by subject",
        licence="GPL-3+",
        sources=("pysiogame",),
        pictures=drawings.words,
        train=20,
        recoloured=True,
    ),
    Task(
        name="furniture",
        kind="drawing",
        about="rendered objects of a home, cut out",
        licence="CC-BY-3.0, CC0-1.0",
        sources=("sweethome3d-furniture",),
        pictures=drawings.furniture,
        train=12,
        share=0.45,
    ),
    Task(
        name="scripts",
        kind="drawing",
        about="letters by writing system, from one typeface to another",
        licence="OFL-1.1",
        sources=("fonts-noto-core",),
        pictures=drawings.scripts,
        train=10,
        keep=30,
    ),
)


@dataclass(frozen=True)
class Made:
    """What was written of a task: counts of images, and the median of their longer sides."""

    classes: int
    train: int
    test: int
    median_side: int


def tasks() -> dict[str, Task]:
    """All of them by name."""
    return {task.name: task for task in TASKS}


def make(task: Task, folder: str | Path, seed: int = 0) -> Made:
    """Write a task into FOLDER/NAME, divided by the seed.

    Raises:
        NotHere: a source of it cannot be had.
        FileExistsError: it is there already.
    """
    goal = Path(folder, task.name)
    if goal.exists():
        raise FileExistsError(f"{goal} is there already; name another --out, or delete it")
    parts = divide(task, seed)
    partial_folder = goal.with_name(f"{task.name}.partial")
    if partial_folder.exists():
        shutil.rmtree(partial_folder)  # of a call that was broken off
    sides = []
    for part, pictures in parts.items():
        for picture in pictures:
            path = partial_folder / part / picture.label / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.read())
            with Image.open(path) as image:
                sides.append(max(image.size))
    partial_folder.rename(goal)
    classes = {picture.label for picture in parts["train"]}
    return Made(len(classes), len(parts["train"]), len(parts["test"]), int(statistics.median(sides)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of tasks; all by default")
    parser.add_argument("--list", action="store_true", help="say what the tasks are, and make none")
    parser.add_argument("--out", type=Path, help="folder for the tasks")
    parser.add_argument("--seed", type=int, default=0, help="of the division")
    given = parser.parse_args(arguments)
    known = tasks()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"unknown task {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in given.names or known]
    if given.list:
        for task in chosen:
            print(f"{task.name:14} {task.kind:10} {task.about}\n{'':25} {task.licence}; {_sources(task)}")
        return 0
    if given.out is None:
        parser.error("say by --out FOLDER where to make them, or --list")
    print(f"{'name':14} {'kind':10} {'classes':>7} {'train':>6} {'kept back':>9} {'side':>5}  licence")
    missing = 0
    for task in chosen:
        try:
            made = make(task, given.out, given.seed)
        except NotHere as error:
            missing += 1
            print(f"{task.name:14} {task.kind:10} not here: {error}", flush=True)
            continue
        figures = f"{made.classes:7} {made.train:6} {made.test:9} {made.median_side:5}"
        print(f"{task.name:14} {task.kind:10} {figures}  {task.licence}", flush=True)
    return 1 if missing == len(chosen) else 0


def _sources(task: Task) -> str:
    return ", ".join(f"{name} {DEBIAN[name][0]}" if name in DEBIAN else name for name in task.sources)


if __name__ == "__main__":
    sys.exit(main())
