"""`slimzoo predict` on what people pass it: damaged files among good ones, folders, patterns, lists, addresses."""

from __future__ import annotations

import csv
import json
import os
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from transfer.prediction import Prediction, Unread, predict, predictions
from zoo.create import create_model
from zoo.errors import SlimzooError
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, save_model
from zoo.files.predictor import open_predictor
from zoo.image import load_image
from zoo.models.lenet import TINY
from zoo.preprocess import Preprocess

CLASSES = ("ant", "bée", unicodedata.normalize("NFD", "käfer"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights that tell pictures apart."""
    out = tmp_path_factory.mktemp("predict") / "m"
    torch.manual_seed(0)
    arguments = {**TINY["lenet5"], "num_classes": 3}
    preprocess = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
    config = ModelConfig(architecture="lenet5", model_args=arguments, classes=CLASSES, preprocess=preprocess)
    with new_directory(out, run={"verb": "test", "arguments": {}}) as work:
        save_model(work, create_model("lenet5", **arguments).eval(), config)
    return out


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Five pictures, the third of them cut off."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:900])
    return tmp_path


def answered(done):
    return [line.partition(": ")[0] for line in done.out.splitlines()]


def test_one_damaged_file_takes_no_other_along(model, photos, slimzoo):
    done = slimzoo("predict", model, *(f"{i}.png" for i in range(5)))
    assert done.code == 3
    assert answered(done) == ["0.png", "1.png", "3.png", "4.png"]
    told, last = done.err.splitlines()
    assert told.startswith("2.png: truncated or damaged")
    assert last == "error: 1 of 5 images cannot be read"
    alone = slimzoo("predict", model, "2.png")
    assert (alone.code, alone.out, alone.err) == (3, "", f"error: {told}\n")


def test_each_is_answered_before_the_next_is_asked_for(model, photos):
    asked = []

    def names():
        for i in range(5):
            asked.append(i)
            yield f"{i}.png"

    for i, answer in enumerate(predictions(open_predictor(model), names(), top=1)):
        assert asked == list(range(i + 1))
        assert isinstance(answer, Unread if i == 2 else Prediction)


def test_json_is_one_document_whatever_was_read(model, photos, slimzoo):
    done = slimzoo("predict", model, "0.png", "2.png", "1.png", "--json", "--top", 9)
    assert done.code == 3
    read = json.loads(done.out)
    assert [p["path"] for p in read["predictions"]] == ["0.png", "1.png"]
    assert {each["label"] for each in read["predictions"][0]["top"]} == {"ant", "bée", "käfer"}  # composed
    assert [(u["path"], u["reason"].startswith("2.png: truncated")) for u in read["unread"]] == [("2.png", True)]
    good = slimzoo("predict", model, "0.png", "--json")
    assert (good.code, json.loads(good.out)["unread"]) == (0, [])


def test_the_table_has_a_line_an_image(model, photos, slimzoo):
    done = slimzoo("predict", model, *(f"{i}.png" for i in range(5)), "--csv", "answers.csv", "--top", 2)
    assert (done.code, done.out) == (3, "answers.csv: 5 lines\n")
    with open("answers.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "predicted", "confidence", "predicted_2", "confidence_2", "error"]
    assert [row["path"] for row in rows] == [f"{i}.png" for i in range(5)]
    expected = predict(model, ["0.png"], top=2)[0].top
    assert [(rows[0]["predicted"], float(rows[0]["confidence"]))] == [expected[0]]
    assert [(rows[0]["predicted_2"], float(rows[0]["confidence_2"]))] == [expected[1]]
    assert rows[2]["predicted"] == ""
    assert "truncated" in rows[2]["error"]
    lost = slimzoo("predict", model, "0.png", "--csv", "nowhere/answers.csv")
    assert lost.code == 2
    assert "nowhere" in lost.err


def test_folders_patterns_and_lists(model, photos, slimzoo):
    (photos / "2.png").unlink()
    (photos / "sub" / "@eaDir").mkdir(parents=True)
    for name in ("sub/deep.png", "sub/no suffix", "sub/@eaDir/thumb.png", "sub/.hidden.png"):
        (photos / name).write_bytes((photos / "0.png").read_bytes())
    (photos / "sub" / "notes.txt").write_text("hello")
    done = slimzoo("predict", model, "sub")
    assert (done.code, answered(done)) == (0, ["sub/deep.png", "sub/no suffix"])
    assert "notes.txt" in done.err or ".txt" in done.err
    assert answered(slimzoo("predict", model, "[0-9].png")) == ["0.png", "1.png", "3.png", "4.png"]
    assert answered(slimzoo("predict", model, "**/*.png"))[-1] == "sub/deep.png"
    assert answered(slimzoo("predict", model, "-", stdin=b"3.png\nsub/deep.png\r\n\n0.png")) == [
        "3.png",
        "sub/deep.png",
        "0.png",
    ]
    assert answered(slimzoo("predict", model, "-", stdin=b"3.png\0sub/no suffix\0")) == ["3.png", "sub/no suffix"]


@pytest.mark.parametrize(
    ("words", "stdin", "code", "said"),
    [
        (["https://example.com/cat.jpg"], b"", 2, "https://example.com/cat.jpg is an address"),
        (["0.png", "s3://bucket/cat.jpg"], b"", 2, "is an address"),
        (["data:image/png;base64,AAAA"], b"", 2, "is an address"),
        (["nothing*.jpg"], b"", 3, "nothing*.jpg"),
        (["missing.png"], b"", 3, "missing.png: No such file"),
        (["empty"], b"", 3, "empty: no images; left out: 1 .txt"),
        (["-"], b"", 3, "standard input names no images"),
        (["-"], b"\x89PNG\r\n\x1a\n", 2, "standard input holds an image"),
    ],
)
def test_what_is_no_image_is_refused_in_a_line(model, photos, slimzoo, words, stdin, code, said):
    (photos / "empty").mkdir()
    (photos / "empty" / "notes.txt").write_text("hello")
    done = slimzoo("predict", model, *words, stdin=stdin)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert done.err.startswith("error: ")
    assert said in done.err


def test_names_that_are_no_text_stay_valid_text(model, photos, slimzoo):
    odd = os.fsdecode(b"l\xe4tin.png")
    (photos / odd).write_bytes((photos / "0.png").read_bytes())
    (photos / os.fsdecode(b"br\xf6ken.png")).write_bytes(b"")
    done = slimzoo("predict", model, ".", "--json", "--csv", "answers.csv")
    read = json.loads(done.out.encode("utf-8"))  # no lone surrogate anywhere
    assert "l\\udce4tin.png" in [p["path"] for p in read["predictions"]]
    assert any(u["path"] == "br\\udcf6ken.png" for u in read["unread"])
    json.dumps(read, ensure_ascii=False).encode("utf-8")
    assert "l\\udce4tin.png" in (photos / "answers.csv").read_text(encoding="utf-8")
    plain = slimzoo("predict", model, odd)
    assert plain.out.encode("utf-8").startswith(b"l\\udce4tin.png: ")


def test_answers_that_are_no_numbers_are_an_error(model, photos):
    class Diverged:
        preprocess, classes = Preprocess(size=(28, 28)), None

        def logits(self, pixels):
            return np.full((1, 3), np.nan, dtype=np.float32)

    with pytest.raises(SlimzooError, match=r"0\.png with numbers that are not finite"):
        list(predictions(Diverged(), ["0.png"], top=1))
    assert load_image("0.png").shape == (30, 40, 3)
