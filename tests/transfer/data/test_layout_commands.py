"""At the command line: what is said of a layout, kept of it, overruled; output inside the data; shares and limits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from transfer.data.dataset import open_data, open_labelled, open_unlabelled
from transfer.data.fitted_data import open_for
from zoo.files.model_directory import read_config

LENET = ["--model", "lenet5", "--method", "scratch", "--epochs", "1"]


def pictures(root, *folders, each=4):
    rng = np.random.default_rng(len(folders))
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(root / folder / f"{i}.png")
    return root


def test_work_inside_the_data_leaves_them_as_they_were(tmp_path, monkeypatch, slimzoo):
    monkeypatch.chdir(pictures(tmp_path / "photos", "cat", "dog", each=5))
    before = open_data(".")
    assert slimzoo("fit", ".", "--out", "mine", *LENET)[0] == 0
    code, said, _ = slimzoo("eval", "mine", ".", "--out", "cat/findings")
    assert code == 0
    assert "mine/ was written by slimzoo and was left out" in said
    (tmp_path / "photos" / "late.partial" / "checkpoints").mkdir(parents=True)
    (tmp_path / "photos" / "late.partial" / "run.json").write_text("{}")
    code, said, _ = slimzoo("fit", ".", "--out", "again", *LENET)
    assert code == 0
    assert "cat/ and dog/ are classes" in said
    for model in ("mine", "again"):
        config = read_config(tmp_path / "photos" / model)
        assert config.classes == ("cat", "dog")
        assert open_for(config, ".").fingerprint() == before.fingerprint()
    assert len(open_unlabelled(".", most=99).keys) == 10
    code, said, _ = slimzoo("data", "check", ".", "--json")
    assert json.loads(said)["images"] == 10
    code, _, error = slimzoo("fit", "mine", "--out", "more", *LENET)
    assert (code, "mine is what slimzoo wrote, and no dataset" in error) == (3, True)


def test_a_sheet_is_not_put_among_the_images(tmp_path, slimzoo):
    photos = pictures(tmp_path / "photos", "cat", "dog")
    code, _, error = slimzoo("data", "check", photos, "--sheet", photos / "cat" / "sheet.png")
    assert code == 2
    assert "would be an image of the dataset" in error
    assert slimzoo("data", "check", photos, "--sheet", photos / "sheet.png")[0] == 0
    assert len(open_data(photos).keys) == 8


def test_a_layout_is_said_and_kept(tmp_path, slimzoo):
    photos = pictures(tmp_path / "photos", "indoor/cat", "indoor/dog", "outdoor/cat", "outdoor/dog")
    for command in (["data", "check", photos], ["fit", photos, "--out", tmp_path / "m", *LENET]):
        code, _, error = slimzoo(*command)
        assert code == 3
        assert "indoor/ and outdoor/ hold the same folders (cat, dog)" in error
    code, said, _ = slimzoo("data", "check", photos, "--layout", "parts")
    assert code == 0
    assert f"slimzoo fit {photos} --layout parts --out mine" in said
    code, said, _ = slimzoo("fit", photos, "--out", tmp_path / "m", *LENET, "--layout", "parts")
    assert code == 0
    assert "indoor/ and outdoor/ hold the same classes and are read as one, 2 classes" in said
    config = read_config(tmp_path / "m")
    data = open_for(config, photos)
    assert data.classes == ("cat", "dog")
    assert data.fingerprint() == config.lineage[0]["data"]["fingerprint"]
    code, said, _ = slimzoo("eval", tmp_path / "m", photos)  # the suggested command
    assert code == 0
    assert "read as one" in said
    code, _, error = slimzoo("fit", photos, "--out", tmp_path / "n", "--layout", "partz")
    assert (code, "did you mean 'parts'" in error) == (2, True)


def test_a_models_classes_tell_what_folders_are(tmp_path):
    scenes = pictures(tmp_path / "scenes", "indoor/cat", "indoor/dog", "outdoor/cat", "outdoor/dog")
    assert open_labelled(scenes, ("cat", "dog")).sizes()["test"] == 16
    assert open_labelled(scenes, ("indoor", "outdoor")).sizes()["test"] == 16
    trains = pictures(tmp_path / "trains", "train/steam", "train/diesel", "car")
    assert open_labelled(trains, ("bus", "car", "train")).sizes()["test"] == 12


def test_eval_on_a_test_part_alone_and_on_known_classes(tmp_path, slimzoo):
    train = pictures(tmp_path / "photos", "cat", "dog", each=6)
    other = pictures(tmp_path / "other", "test/cat", "test/dog", "test/owl", each=3)
    assert slimzoo("fit", train, "--out", tmp_path / "m", *LENET)[0] == 0
    code, _, error = slimzoo("eval", tmp_path / "m", other)
    assert code == 3
    assert "class 'owl' is not among the training classes" in error
    assert "--known-only" in error
    code, said, _ = slimzoo("eval", tmp_path / "m", other, "--known-only")
    assert code == 0
    assert "3 images of classes that the model does not know are left out: owl (3)" in said
    assert "6 images" in said


def test_shares_may_be_per_cent(tmp_path):
    photos = pictures(tmp_path, "cat", "dog", each=10)
    assert open_data(photos, val="20%", test="10 %").sizes() == {"train": 14, "val": 4, "test": 2}
    assert open_data(photos, val="20%").fingerprint() == open_data(photos, val=0.2).fingerprint()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100000"], "--size 100000: wanted a side from 1 to 4096 pixels"),
        (["--batch", "100000000"], "batch=100000000 must be from 1 to 65536"),
        (["--epochs", "1000000000"], "--epochs 1000000000 must be a whole number from 0 to 100000"),
        (["--seed", str(2**63)], "--seed"),
        (["--val", "120%"], "must be shares from 0 to below 1"),
        (["--val", "20"], "0.2, or 20%"),
        (["--set", "nope=1"], "unknown setting 'nope'; wanted one of epochs, batch, optimizer"),
        (["--set", "augment.nope=1"], "unknown setting 'augment.nope'"),
        (["--set", "batch=0"], "batch=0 must be from 1 to 65536"),
    ],
)
def test_absurd_arguments_are_refused_before_any_work(tmp_path, slimzoo, words, message):
    photos = pictures(tmp_path / "photos", "cat", "dog")
    code, _, error = slimzoo("fit", photos, "--out", tmp_path / "m", "--model", "lenet5", "--method", "scratch", *words)
    assert code == 2, error
    assert message in error
    assert not (tmp_path / "m").exists()
