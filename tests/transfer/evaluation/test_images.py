"""`eval` never takes an image that the model was trained on for a new one, wherever model and images are by then."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from compress.cli import app
from transfer.data.dataset import open_data
from transfer.data.fitted_data import open_for, reopen
from zoo.errors import DataError
from zoo.files.manifest import write_manifest
from zoo.files.model_directory import read_config

CLASSES = ("ant", "bee", "cow")


def slimzoo(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def measured(*words):
    """The JSON document of `eval`."""
    done = slimzoo("eval", *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 36, 3), dtype=np.uint8)
    pixels[::9] = seed % 256
    return Image.fromarray(pixels)


def add(folder, seed, name):
    picture(seed).save(folder / name / f"{seed}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """`photos`: 20 of each class, labels by lot; `m`, trained on them, and its ONNX files."""
    home = tmp_path_factory.mktemp("eval")
    for i in range(60):
        (home / "photos" / CLASSES[i % 3]).mkdir(parents=True, exist_ok=True)
        add(home / "photos", i, CLASSES[i % 3])
    fit = ["fit", home / "photos", "--model", "lenet5", "--method", "scratch", "--epochs", "1", "--out", home / "m"]
    fit += ["--val", "0.2", "--test", "0.2"]
    for words in (fit, ["export", home / "m"]):
        done = slimzoo(*words)
        assert done.exit_code == 0, done.output
    data = open_data(home / "photos", val=0.2, test=0.2)
    parts = {part: {Path(data.keys[i]).name for i in data.indices(part)} for part in ("train", "val", "test")}
    assert [len(parts[part]) for part in ("train", "val", "test")] == [36, 12, 12]
    shutil.copy(home / "m" / "model.onnx", home / "elsewhere.onnx")
    return SimpleNamespace(path=home, photos=home / "photos", parts=parts, files=sorted(home.rglob("photos/*/*.png")))


def same(home, tmp_path):
    return home.photos, 12, 36, 12


def one_more(home, tmp_path):
    copy = shutil.copytree(home.photos, tmp_path / "copy")
    add(copy, 1000, "ant")
    return copy, 13, 36, 12


def one_less(home, tmp_path):
    copy = shutil.copytree(home.photos, tmp_path / "copy")
    next(file for file in copy.rglob("*.png") if file.name in home.parts["train"]).unlink()
    return copy, 12, 35, 12


def half_as_a_table(home, tmp_path):
    half = home.files[::2]
    table = tmp_path / "half.csv"
    table.write_text("path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in half))
    counts = [sum(file.name in home.parts[part] for file in half) for part in ("test", "train", "val")]
    return table, *counts


def saved_again(home, tmp_path):
    """Other files, other names, the same pixels."""
    for number, file in enumerate(home.files):
        target = tmp_path / "again" / file.parent.name / f"x{number}.bmp"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(target)
    return tmp_path / "again", 12, 36, 12


def as_arrays(home, tmp_path):
    images, labels = np.stack([np.asarray(Image.open(f)) for f in home.files]), [f.parent.name for f in home.files]
    np.savez(tmp_path / "all.npz", images=images, labels=np.array(labels))
    return tmp_path / "all.npz", 12, 36, 12


@pytest.mark.parametrize("made", [same, one_more, one_less, half_as_a_table, saved_again, as_arrays])
@pytest.mark.parametrize("model", ["m", "elsewhere.onnx"])
def test_what_was_trained_on_is_left_out(home, tmp_path, made, model):
    source, new, trained, chose = made(home, tmp_path)
    found = measured(home.path / model, source)
    assert (found["n"], found["part"]) == (new, "test")
    assert found["left_out"] == {"trained": trained, "chose": chose}
    assert found["included"] == {"trained": 0, "chose": 0}
    all_ = measured(home.path / model, source, "--all")
    assert (all_["n"], all_["part"]) == (new + trained + chose, "all")
    assert all_["included"] == {"trained": trained, "chose": chose}


def test_the_images_measured_are_the_test_images_of_the_fit(home, tmp_path):
    source, *_ = one_more(home, tmp_path)
    done = slimzoo("eval", home.path / "elsewhere.onnx", source, "--out", tmp_path / "found")
    assert "left out: 36 images that it was trained on and 12 that it was chosen by" in done.output
    rows = (tmp_path / "found" / "predictions.csv").read_text().splitlines()[1:]
    assert {Path(row.split(",")[0]).name for row in rows} == home.parts["test"] | {"1000.png"}


def test_where_only_validation_images_are_new_they_are_named_so_and_training_images_refused(home, tmp_path):
    for part in ("val", "train"):
        for file in home.files:
            if file.name in home.parts[part]:
                (tmp_path / part / file.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, tmp_path / part / file.parent.name)
        done = slimzoo("eval", home.path / "elsewhere.onnx", tmp_path / part)
        if part == "val":
            assert "validation images, by which it was chosen" in done.output
        else:
            assert isinstance(done.exception, DataError)
            assert "was trained on all images of" in str(done.exception)
            assert "--all" in done.exception.on_command_line()


def test_a_model_from_before_says_that_nobody_knows(home, tmp_path):
    old = shutil.copytree(home.path / "m", tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["slimzoo"]["seen"]
    (old / "config.json").write_text(json.dumps(config))
    (old / "MANIFEST.sha256").unlink()
    write_manifest(old)
    assert measured(old, home.photos)["n"] == 12, "its own data are divided by the lineage still"
    assert measured(old, home.photos)["left_out"] == {"trained": 36, "chose": 12}
    source, *_ = one_more(home, tmp_path)
    done = slimzoo("eval", old, source)
    assert "which images" in done.output
    assert "is not recorded" in done.output
    assert measured(old, source)["left_out"] is None


def test_steps_go_on_with_a_folder_that_changed_and_later_measurements_know(home, tmp_path):
    source, *_ = one_more(home, tmp_path)
    next(file for file in source.rglob("*.png") if file.name in home.parts["test"]).unlink()
    arguments = ["--data", source, "--density", "0.5", "--epochs", "1"]
    done = slimzoo("sparsify", home.path / "m", *arguments, "--out", tmp_path / "sparse", "--json")
    assert done.exit_code == 0, done.output
    after = json.loads(done.stdout)["metrics"]["after"]
    assert after["test"]["n"] == 11, "of the fit's, and none that was trained on"
    assert after["val"]["n"] == 12
    found = measured(tmp_path / "sparse", home.photos)
    assert (found["n"], found["left_out"]) == (12, {"trained": 36, "chose": 12})
    config = read_config(tmp_path / "sparse")
    again = open_for(config, source)
    assert again.sizes() == {"train": 37, "val": 12, "test": 11}
    assert config.seen.part_of(again.hashes[[Path(key).name for key in again.keys].index("1000.png")]) == "train"
    assert reopen(config.lineage, source) is None


def test_a_step_takes_no_part_of_a_copy_for_another(home, tmp_path):
    """Saved again, with new pictures beside: none of the fit's training images judges what the step made."""
    source, *_ = saved_again(home, tmp_path)
    for seed in range(100, 130):
        add(source, seed, CLASSES[seed % 3])
    data = open_for(read_config(home.path / "m"), source)
    names = {f"x{number}.bmp": file.name for number, file in enumerate(home.files)}
    for part in ("train", "val", "test"):
        old = {names[name] for i in data.indices(part) if (name := Path(data.keys[i]).name) in names}
        assert old == home.parts[part]
    assert data.sizes() == {"train": 36 + 24, "val": 12 + 6, "test": 12}  # of new ones none, unless asked for
