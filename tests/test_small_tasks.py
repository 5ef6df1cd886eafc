"""Small tasks are made the same for the same seed, and nothing of what is kept back is shown."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import small_tasks
import task_division
import task_sources
from PIL import Image
from task_sources import NotHere, Picture

SHARED = Path(os.environ.get("SLIMZOO_DATA", Path(__file__).parents[2] / "shared/data"))
OFFLINE = ("digits", "mnist-ten", "emoji")  # tasks of data that are here


@pytest.fixture(params=OFFLINE)
def task(request, monkeypatch):
    monkeypatch.setenv("SLIMZOO_DATA", str(SHARED))
    task = small_tasks.tasks()[request.param]
    if "shared data" in task.sources and not SHARED.is_dir():
        pytest.skip("no SLIMZOO_DATA and no ../shared/data")
    return task


def files(folder):
    """{path: SHA-256}"""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_seed_is_a_division(task, tmp_path):
    made = [small_tasks.make(task, tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    first, again, other = (files(tmp_path / name / task.name) for name in "abc")
    assert made[0] == made[1]
    assert first == again
    assert set(first) != set(other)
    train, test = ({sha for path, sha in first.items() if path.startswith(part)} for part in ("train/", "test/"))
    assert train
    assert not train & test
    assert made[0].train == sum(path.startswith("train/") for path in first)
    assert made[0].test == sum(path.startswith("test/") for path in first) >= 100
    assert 5 <= made[0].classes <= 50
    per_class = made[0].train / made[0].classes
    assert 5 <= per_class <= 100
    classes = {part: {path.split("/")[1] for path in first if path.startswith(part)} for part in ("train/", "test/")}
    assert classes["train/"] == classes["test/"]


def test_skins_and_sexes_of_an_emoji_are_in_one_part(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_DATA", str(tmp_path))
    names = ("1f468-200d-1f4bb", "1f469-200d-1f4bb", "1f9d1-1f3fd-200d-1f4bb", "1f6b4-200d-2642-fe0f", "1f6b4")
    for style in ("google", "twitter"):
        (tmp_path / "emoji" / style / "people").mkdir(parents=True)
        for name in names:
            (tmp_path / "emoji" / style / "people" / f"{name}.png").touch()
    pictures = small_tasks.drawings.emoji("google twitter")
    groups = {picture.name.partition("-")[2]: picture.group for picture in pictures}
    assert len({groups[f"{name}.png"] for name in names[:3]}) == 1
    assert len({groups[f"{name}.png"] for name in names[3:]}) == 1
    assert len(set(groups.values())) == 2


def noise(seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue


@pytest.fixture
def noisy():
    """A task of ten pictures in each of two classes, each of them there as PNG, as JPEG and mirrored."""

    def pictures():
        found = []
        for i in range(20):
            image, label = noise(i), "ab"[i % 2]
            mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            found += [
                Picture(label, f"{i}.png", encoded(image)),
                Picture(label, f"{i}.jpg", encoded(image, "JPEG")),
                Picture(label, f"{i}-mirrored.png", encoded(mirrored)),
            ]
        return found

    return dataclasses.replace(small_tasks.tasks()["digits"], name="noisy", pictures=pictures, train=12, keep=None)


def names(pictures):
    """What they were made of, whatever the form."""
    return {(picture.label, picture.name.split(".")[0].split("-")[0]) for picture in pictures}


@pytest.mark.parametrize("seed", range(3))
def test_copies_stay_together(noisy, seed):
    parts = task_division.divide(noisy, seed)
    shown, kept = (names(parts[part]) for part in ("train", "test"))
    assert len(parts["train"]) == 24
    assert len(parts["train"]) + len(parts["test"]) == 60
    assert not shown & kept


def test_a_picture_with_two_labels_is_in_neither_part(noisy):
    doubtful = [Picture(label, f"doubtful-{label}.png", encoded(noise(99))) for label in "ab"]
    task = dataclasses.replace(noisy, pictures=lambda: [*noisy.pictures(), *doubtful])
    parts = task_division.divide(task, 0)
    assert len(parts["train"]) + len(parts["test"]) == 60


def test_a_picture_in_another_colour_is_no_other_picture(noisy):
    tint = np.array([1, 0.6, 0.6])
    red = [
        Picture("a", f"{i}-red.png", encoded(Image.fromarray((np.asarray(noise(i)) * tint).astype(np.uint8))))
        for i in range(0, 20, 2)
    ]

    def in_both(recoloured):
        task = dataclasses.replace(noisy, pictures=lambda: [*noisy.pictures(), *red], recoloured=recoloured)
        parts = task_division.divide(task, 0)
        shown, kept = (names(parts[part]) for part in ("train", "test"))
        return shown & kept

    assert not in_both(recoloured=True)
    assert in_both(recoloured=False)


def test_tasks_say_what_they_are():
    tasks = small_tasks.tasks()
    assert len(tasks) >= 12
    assert len(tasks) == len(small_tasks.TASKS)  # no name twice
    seen = [task for task in tasks.values() if task.kind in ("photograph", "scan")]
    assert 3 * len(seen) >= len(tasks)
    for task in tasks.values():
        assert task.licence
        assert task.about
        assert task.sources
        assert set(task.sources) <= {*task_sources.DEBIAN, "scikit-learn", "shared data"}


def test_a_source_that_cannot_be_had_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NotHere, match="there is no apt-get here"):
        task_sources.unpacked("stellarium-data")
    assert small_tasks.main(["astronomy", "digits", "--out", str(tmp_path / "made")]) == 0
    said = capsys.readouterr().out
    assert "not here: stellarium-data is a Debian package" in said
    assert (tmp_path / "made/digits/train/0").is_dir()
    assert small_tasks.main(["astronomy", "--out", str(tmp_path / "made")]) == 1


def test_a_file_other_than_the_recorded_one_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: name)

    def fetch(package, version, folder):
        (folder / f"{package}_{version}_all.deb").write_bytes(b"something else")
        return folder / f"{package}_{version}_all.deb"

    monkeypatch.setattr(task_sources, "_fetch", fetch)
    with pytest.raises(NotHere, match="SHA-256 differs"):
        task_sources.unpacked("unicode-data")


def test_qt_resources_are_read(tmp_path):
    """Laid out by hand as Qt's rcc does: a folder with a plain file and a compressed one."""
    contents = {"plain.txt": b"as it is", "packed.webp": b"smaller " * 20}
    names, nodes, data = b"", [], b""
    for name, content in {"": b"", "folder": b"", **contents}.items():
        place = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if name in contents:
            packed = name.startswith("packed")
            stored = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
            nodes.append(struct.pack(">IHHHI", place, int(packed), 0, 0, len(data)))
            data += struct.pack(">I", len(stored)) + stored
        else:
            nodes.append(struct.pack(">IHII", place, 2, 2 if name else 1, len(nodes) + 1))
    tree = b"".join(nodes)
    file = tmp_path / "some.rcc"
    header = struct.pack(">4sIIII", b"qres", 1, 20, 20 + len(tree), 20 + len(tree) + len(data))
    file.write_bytes(header + tree + data + names)
    assert dict(task_sources.qt_resources(file)) == {f"folder/{name}": content for name, content in contents.items()}
    file.write_bytes(b"no resources, but long enough to be")
    with pytest.raises(NotHere, match="no Qt resource file"):
        list(task_sources.qt_resources(file))
