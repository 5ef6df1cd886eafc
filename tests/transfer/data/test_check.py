"""`check_data` names every planted defect, all of them at once, changes nothing, and finds nothing in good data."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from transfer.data.augment import NONE, Augment
from transfer.data.check import check_data
from transfer.data.check_sheets import save_check_sheet, save_input_sheet
from transfer.data.contact_sheet import GAP, SIDE
from transfer.data.dataset import open_data
from zoo.errors import DataError, UsageError
from zoo.image import load_image
from zoo.preprocess import Preprocess


def photograph(seed, side=40):
    """Smooth random colours, the same for the same seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def save(path, seed, side=40, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    photograph(seed, side).save(path, **options)


@pytest.fixture
def good(tmp_path):
    for i in range(30):
        save(tmp_path / "good" / "abc"[i % 3] / f"{i}.png", i)
    return tmp_path / "good"


def found(check):
    """{kind: (level, names of the files, folders or classes)}"""
    return {f.kind: (f.level, {e.key.rpartition("/")[2] for e in f.examples}) for f in check.findings}


def digests(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_good_data_are_ready(good):
    check = check_data(good, seed=3)
    assert check.ok
    assert check.findings == ()
    assert check.counts == {name: {"train": 8, "val": 2} for name in "abc"}
    assert check.pixels == dict.fromkeys(("smallest", "median", "largest"), (40, 40))
    parts = open_data(good, seed=3).parts.tolist()
    assert [item.part for item in check.items] == parts  # what is checked is what is fitted
    assert check.describe()[0].endswith("good: 30 images, 3 classes")
    assert check.describe()[-1] == "ready to fit"


def test_every_defect_is_named_at_once(good):
    (good / "a" / "text.jpg").write_text("not an image")
    (good / "a" / "empty.png").write_bytes(b"")
    content = (good / "a" / "0.png").read_bytes()
    (good / "a" / "half.png").write_bytes(content[: len(content) // 2])
    (good / "a" / "gone.png").symlink_to("nowhere")
    Image.new("1", (8000, 7000)).save(good / "b" / "bomb.png")
    (good / "nothing").mkdir()
    save(good / "lonely" / "1.png", 50)
    save(good / "B" / "1.png", 51)
    save(good / "B" / "2.png", 52)
    save(good / "B" / "3.png", 53)
    (good / "c" / "copy.png").write_bytes(content)
    save(good / "b" / "1-again.jpg", 1, 30, quality=70)
    photograph(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(good / "c" / "2-mirrored.png")
    save(good / "a" / "tiny.png", 60, 8)
    (good / "a" / "phone.cr2").write_bytes(b"raw")
    (good / "a" / "notes.txt").write_text("hello")
    (good / ".hidden").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(good / "a" / "deep.png")
    photograph(61).convert("CMYK").save(good / "a" / "print.jpg")
    photograph(62).save(good / "a" / "really.png", "JPEG")
    before = digests(good)
    check = check_data(good)
    assert digests(good) == before
    assert not check.ok
    kinds = found(check)
    assert kinds.pop("unreadable") == ("error", {"text.jpg", "empty.png", "half.png", "gone.png"})
    assert kinds.pop("too large") == ("error", {"bomb.png"})
    assert kinds.pop("empty class") == ("error", {"nothing"})
    assert kinds.pop("too small") == ("error", {"lonely"})
    assert kinds.pop("one image") == ("warning", {"lonely"})
    assert kinds.pop("imbalance") == ("warning", {"a", "lonely"})
    assert kinds.pop("similar names") == ("warning", {"B"})
    assert kinds.pop("duplicates") == ("warning", {"0.png", "1-again.jpg", "2-mirrored.png"})
    assert kinds.pop("conflicting labels") == ("warning", {"0.png"})
    assert kinds.pop("tiny") == ("warning", {"tiny.png"})
    assert kinds.pop("16-bit") == ("note", {"deep.png"})
    assert kinds.pop("CMYK") == ("note", {"print.jpg"})
    assert kinds.pop("grey") == ("note", {"deep.png"})
    assert kinds.pop("wrong extension") == ("note", {"really.png"})
    assert kinds.pop("ignored") == ("note", {"notes.txt"})  # the second of that name
    assert kinds == {}
    ignored = [(f.level, f.examples[0].key.rpartition("/")[2]) for f in check.findings if f.kind == "ignored"]
    assert ignored == [("warning", "phone.cr2"), ("note", "notes.txt")]
    assert {pair.kind for pair in check.pairs} == {"equal", "near", "mirrored"}
    levels = [finding.level for finding in check.findings]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    text = "\n".join(check.describe())
    for words in ("half.png: truncated", "bomb.png: 56 megapixels", "phone.cr2", "class 'lonely' has 1 distinct image"):
        assert words in text
    assert "not ready to fit: 4 kinds of error (7 kinds of warning)" in text


def test_parts_that_share_images_are_told(tmp_path):
    for i in range(12):
        save(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", i)
        save(tmp_path / "test" / "ab"[i % 2] / f"{i}.png", 100 + i)
    (tmp_path / "test" / "a" / "copy.png").write_bytes((tmp_path / "train" / "a" / "4.png").read_bytes())
    save(tmp_path / "test" / "b" / "smaller.jpg", 5, 32, quality=80)
    check = check_data(tmp_path)
    assert check.ok
    assert found(check)["leakage"] == ("warning", {"copy.png", "smaller.jpg"})
    assert check.counts["a"] == {"train": 5, "val": 1, "test": 7}


def test_other_sources_are_checked_as_their_part(good, tmp_path):
    save(tmp_path / "others" / "a" / "1.png", 90)
    save(tmp_path / "others" / "d" / "2.png", 91)
    (tmp_path / "others" / "b").mkdir()
    check = check_data(good, test=str(tmp_path / "others"), val=0.1)
    assert found(check) == {"unknown class": ("error", {"d"}), "empty class": ("error", {"b"})}
    assert check.counts["a"] == {"train": 9, "val": 1, "test": 1}
    assert "did you mean" in str(check.to_dict()) or "known: a, b, c" in str(check.to_dict())


def test_rows_of_a_table_are_all_read(good):
    lines = [
        "path,label,split",
        "a/0.png,a,train",
        "a/77.png,a,train",
        "a/3.png,,train",
        "b/1.png,b,exam",
        "b/4.png,b,",
    ]
    (good / "index.csv").write_text("\n".join(lines))
    check = check_data(good / "index.csv")
    kinds = found(check)
    assert kinds["unreadable"] == ("error", {"77.png"})
    rows = next(finding for finding in check.findings if finding.kind == "row")
    assert [example.why for example in rows.examples] == [
        "path 'a/3.png', label ''; wanted both",
        "split 'exam'; wanted train, val or test",
        "1 of 3 rows have no split; fill the column for all or for none",
    ]


def test_one_class_and_nothing_at_all(tmp_path):
    save(tmp_path / "one" / "a" / "1.png", 0)
    assert found(check_data(tmp_path / "one")).keys() == {"one class", "too small", "one image"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images; wanted one folder a class"):
        check_data(tmp_path / "empty")
    with pytest.raises(UsageError, match="no dataset"):
        check_data(tmp_path / "none")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    assert found(check_data(tmp_path / "hollow")).keys() == {"empty class", "one class"}


def test_digits_and_arrays_are_checked(tmp_path):
    check = check_data("digits")
    assert check.ok
    assert found(check).keys() == {"tiny"}
    assert sum(parts["test"] for parts in check.counts.values()) == open_data("digits").sizes()["test"]
    images = np.stack([np.asarray(photograph(i, 24)) for i in range(12)])
    images[5] = images[4]
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(12) % 2)
    check = check_data(tmp_path / "d.npz")
    assert found(check).keys() == {"duplicates", "conflicting labels"}
    assert check.groups() == [[4, 5]]


def test_document_is_json_whatever_the_names(tmp_path):
    for i, name in enumerate(("new\nline", "<b>&'\"", "\U0001f600", b"\xff\xfe".decode(errors="surrogateescape"))):
        for k in range(3):
            save(tmp_path / name / f"{k}.png", 3 * i + k)
        (tmp_path / name / "\x1b[31m.png").write_bytes(b"")
    check = check_data(tmp_path)
    document = json.loads(json.dumps(check.to_dict(), ensure_ascii=False).encode())
    assert document["errors"] == 1
    assert document["images"] == 16
    assert {"new\nline", "<b>&'\"", "\U0001f600"} < document["classes"].keys()
    text = "\n".join(check.describe())
    assert text.encode()
    assert "\x1b" not in text
    assert "new\\nline" in text
    save_check_sheet(check, tmp_path / "sheet.png")
    assert load_image(tmp_path / "sheet.png").shape[1] > SIDE


def test_document_has_all_that_was_found(good):
    (good / "c" / "copy.png").write_bytes((good / "a" / "0.png").read_bytes())
    document = check_data(good).to_dict()
    assert document["ok"]
    assert (document["images"], document["errors"], document["warnings"]) == (31, 0, 2)
    assert document["pixels"] == {"smallest": [40, 40], "median": [40, 40], "largest": [40, 40]}
    (group,) = document["duplicates"]
    assert [(row["key"].rpartition("/")[2], row["class"], row["kind"]) for row in group] == [
        ("0.png", "a", "equal"),
        ("copy.png", "c", "equal"),
    ]
    assert len({row["part"] for row in group}) == 1
    assert [(f["level"], f["kind"]) for f in document["findings"]] == [
        ("warning", "duplicates"),
        ("warning", "conflicting labels"),
    ]


def test_check_spares_the_fit_its_search(good, monkeypatch):
    check_data(good)
    monkeypatch.setattr("transfer.data.thumbnails.thumbnail", None)  # calling it would fail
    assert open_data(good).sizes() == {"train": 24, "val": 6, "test": 0}


def colours_of(path):
    sheet = load_image(path)
    return {tuple(colour) for colour in np.unique(sheet.reshape(-1, 3), axis=0).tolist()}


def test_sheet_shows_the_images_in_question(good, tmp_path):
    save_check_sheet(check_data(good), tmp_path / "good.png")  # nothing is wrong: one image of each class
    assert load_image(tmp_path / "good.png").shape[1] == 3 * (SIDE + GAP) + GAP
    red, blue = (0xD6, 0x27, 0x28), (0x1F, 0x77, 0xB4)
    assert not {red, blue} & colours_of(tmp_path / "good.png")
    (good / "a" / "copy.png").write_bytes((good / "a" / "0.png").read_bytes())
    save_check_sheet(check_data(good), tmp_path / "pair.png")
    assert {red, blue} & colours_of(tmp_path / "pair.png") == {blue}
    (good / "a" / "text.png").write_text("text")
    save_check_sheet(check_data(good), tmp_path / "both.png")
    assert {red, blue} <= colours_of(tmp_path / "both.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_input_sheet_maps_the_tensor_back(tmp_path, channels):
    """Without augmentation all tiles of a row are the same picture: normalizing and mapping back changes nothing."""
    mean, std = ((0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels])
    preprocess = Preprocess(size=(48, 48), mean=mean, std=std)
    pixels = np.stack([preprocess.resize(np.asarray(photograph(i, 90))) for i in range(3)])
    options = {"labels": np.array([0, 1, 0]), "keys": (), "classes": ("a", "b"), "preprocess": preprocess}
    save_input_sheet(pixels, augment=NONE, path=tmp_path / "plain.png", **options)
    plain = tiles_of(tmp_path / "plain.png")
    assert all((tile == plain[0]).all() for tile in plain)
    assert len(np.unique(plain[0].reshape(-1, 3), axis=0)) > 50
    save_input_sheet(pixels, augment=Augment(), path=tmp_path / "moved.png", **options)
    moved = tiles_of(tmp_path / "moved.png")
    assert not (moved[1] == moved[2]).all()
    assert (moved[0] == moved[4]).all()
    assert (moved[0] == plain[0]).all()


def tiles_of(path):
    """Of the first row of an input sheet: the pictures without their captions."""
    sheet = load_image(path)[40:100]
    return [sheet[:, GAP + i * (SIDE + GAP) :][:, :SIDE] for i in range(5)]
