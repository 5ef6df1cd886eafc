"""What `fit` says of data before it trains, and that a dry run refuses what it would refuse."""

from __future__ import annotations

import json
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from transfer.data.dataset import open_data
from transfer.data.folder import class_folders, list_folder
from transfer.data.loader import load_pixels
from transfer.data.remarks import leaks_and_contradictions
from zoo.files.model_directory import ModelConfig
from zoo.image import HEIC_READABLE
from zoo.preprocess import Preprocess

DRY = ["--model", "resnet20", "--method", "scratch", "--dry-run"]


def photograph(seed, side=40):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def fill(folder, classes, seeds):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for seed in seeds:
            photograph(1000 * number + seed).save(folder / name / f"{seed}.png")


@pytest.fixture
def photos(tmp_path):
    fill(tmp_path / "photos", ["cat", "dog"], range(6))
    return tmp_path / "photos"


def fit_says(slimzoo, data, *options):
    done = slimzoo("fit", data, "--out", f"{data}-model", *DRY, *options)
    assert done.code == 0, done.err
    lines = done.out.splitlines()[:-1]  # the last says what would be done
    return [line for line in lines if not line.startswith(f"{data}: ")]  # how the folders are understood


def test_nothing_is_said_of_good_data(photos, slimzoo):
    assert fit_says(slimzoo, photos) == []


def test_what_is_left_out_is_said(photos, slimzoo):
    phone = () if HEIC_READABLE else ("c.heic",)
    for name in (*phone, "a.cr2", "b.cr2", "notes.txt", "LICENSE", "Thumbs.db", ".hidden.png"):
        (photos / "cat" / name).write_bytes(b"?")
    for name in ("@eaDir", "__MACOSX/cat", "cat/@eaDir/1.png", "cat/.thumbnails"):
        (photos / name).mkdir(parents=True)
        photograph(1).save(photos / name / "SYNOPHOTO_THUMB_M.jpg")
    said = "\n".join(fit_says(slimzoo, photos))
    if phone:
        assert "1 .heic (HEIC, as phones write it; pip install 'slimzoo[heic]' reads it)" in said
    assert "left out: 2 .cr2 (convert them to PNG or JPEG)" in said
    assert "left out: @eaDir, __MACOSX, @eaDir (made by the system" in said
    assert "left out: 1 .txt, LICENSE" in said
    assert said.endswith(f"all of it: slimzoo data check {photos}")


def test_a_class_of_unread_files_says_which_they_are(photos, slimzoo):
    (photos / "emu").mkdir()
    for i in range(3):
        (photos / "emu" / f"{i}.cr2").write_bytes(b"raw")
    done = slimzoo("fit", photos, "--out", f"{photos}-model", *DRY)
    assert done.code == 3
    assert "emu: a class without images" in done.err
    assert "left out: 3 .cr2 (convert them to PNG or JPEG)" in done.err


@pytest.mark.parametrize("name", ["1.jfif", "1.JPE", "1.avif", "plain", "2024.05.17", "3.jpg?w=300"])
def test_images_are_taken_whatever_they_are_called(tmp_path, name):
    fill(tmp_path, ["cat", "dog"], range(2))
    photograph(50).save(tmp_path / "cat" / name, "AVIF" if name.endswith("avif") else "JPEG")
    listing = list_folder(tmp_path)
    assert str(tmp_path / "cat" / name) in {item.key for item in listing.items}
    assert listing.ignored == ()


def test_leaks_between_the_parts_of_a_source_are_said(tmp_path, slimzoo):
    fill(tmp_path / "p" / "train", ["cat", "dog"], range(9))
    fill(tmp_path / "p" / "test", ["cat", "dog"], range(20, 24))
    fill(tmp_path / "p" / "rest", ["cat", "dog"], range(30, 32))
    assert "left out: rest (beside parts, and none)" in fit_says(slimzoo, tmp_path / "p")
    shutil.copy(tmp_path / "p/train/cat/1.png", tmp_path / "p/test/cat/copy.png")
    photograph(1005).resize((31, 31)).save(tmp_path / "p/test/dog/smaller.jpg", quality=85)
    data = open_data(tmp_path / "p", val=0)
    pixels = {
        part: load_pixels(data, Preprocess(size=(64, 64)), part) for part in ("train", "test")
    }  # as fit has them, and with which it finds what no thumbnail in the cache shows
    assert [line.partition(",")[0] for line in leaks_and_contradictions(data, pixels)] == [
        "leak: 2 of 10 test images are in train too"
    ]
    shutil.copytree(tmp_path / "p/train", tmp_path / "p/val")
    leaks = [line for line in fit_says(slimzoo, tmp_path / "p") if line.startswith("leak: ")]
    assert [line.partition(",")[0] for line in leaks] == [
        "leak: 18 of 18 val images are in train too",
        "leak: 2 of 10 test images are in train too",
        "leak: 2 of 10 test images are in val too",
    ]


def test_contradictions_are_said(photos, slimzoo):
    shutil.copy(photos / "cat" / "1.png", photos / "dog" / "copy.png")
    photograph(1003).resize((33, 33)).save(photos / "cat" / "near.jpg", quality=85)
    said = fit_says(slimzoo, photos)
    assert said[0].startswith("contradiction: 2 pictures are there under two labels")
    assert f"{photos}/cat/1.png ('cat') and {photos}/dog/copy.png ('dog')" in said[0]


@pytest.mark.parametrize("parts", [False, True])
def test_a_dry_run_refuses_what_a_run_refuses(tmp_path, slimzoo, parts):
    data = tmp_path / "d"
    for part in ("train", "val", "test") if parts else ("",):
        fill(data / part, ["cat", "dog"], [{"": 0, "train": 0, "val": 10, "test": 20}[part] + i for i in range(5)])
    cut = sorted(data.rglob("3.png"))[0]
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    done = slimzoo("fit", data, "--out", tmp_path / "m", *DRY)
    assert done.code == 3
    assert f"{cut}: truncated or damaged" in done.err
    cut.unlink()
    Image.new("1", (9000, 6000)).save(cut.with_name("huge.png"))
    done = slimzoo("fit", data, "--out", tmp_path / "m", *DRY)
    assert done.code == 3
    assert "huge.png: 54 megapixels, more than 50" in done.err


def test_class_names_are_compared_composed(tmp_path):
    """macOS hands out decomposed names of folders, and tables are typed composed."""
    composed, decomposed = "Käfer", unicodedata.normalize("NFD", "Käfer")
    assert composed != decomposed
    fill(tmp_path / "f" / "train", [decomposed, "bee"], range(3))
    fill(tmp_path / "f" / "test", [composed, "bee"], range(10, 12))
    data = open_data(tmp_path / "f", val=0)
    assert data.classes == ("Käfer", "bee") == class_folders(tmp_path / "f")
    rows = "".join(f"f/train/{folder}/0.png,{folder}\n" for folder in (decomposed, "bee"))
    rows += f"f/train/{decomposed}/1.png,{composed}\n"
    (tmp_path / "t.csv").write_text("path,label\n" + rows, encoding="utf-8")
    assert open_data(tmp_path / "t.csv", val=0, test=0).classes == data.classes
    images, labels = np.zeros((4, 9, 9), np.uint8), np.array([decomposed, composed, "bee", "bee"])
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    assert open_data(tmp_path / "a.npz", val=0, test=0).classes == data.classes
    preprocess = Preprocess(size=(9, 9))
    config = ModelConfig(architecture="x", model_args={}, classes=(decomposed, "bee"), preprocess=preprocess)
    assert config.classes == data.classes
    written = json.loads(json.dumps(config.to_json()))
    assert ModelConfig.from_json(written, tmp_path).classes == data.classes
