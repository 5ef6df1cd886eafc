"""Every kind of source gives the images that were put into it, in the parts that were meant, or says what is wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from transfer.data.dataset import open_data, open_labelled
from transfer.data.fitted_data import open_for, reopen
from transfer.data.sources import list_source
from transfer.data.split import stratified_split
from zoo.errors import DataError, UsageError
from zoo.files.model_directory import ModelConfig
from zoo.preprocess import Preprocess


def colour(seed):
    return np.random.default_rng(seed).integers(0, 256, 3).tolist()


def save(path, seed):
    """A 4 x 6 picture of one colour, decided by the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), tuple(colour(seed))).save(path)


@pytest.fixture
def pets(tmp_path):
    """Three classes of 10, 5 and 5 images; image i of all is of colour(i)."""
    names = [("cat", 10), ("dog", 5), ("emu", 5)]
    for i, (name, number) in enumerate((n, k) for n, count in names for k in range(count)):
        save(tmp_path / "pets" / name / f"{number}.png", i)
    return tmp_path / "pets"


def counts(data):
    """{part: {class: images}}"""
    found: dict[str, dict[str, int]] = {}
    for part, label in zip(data.parts.tolist(), data.labels.tolist(), strict=True):
        by_class = found.setdefault(part, {})
        by_class[data.classes[label]] = by_class.get(data.classes[label], 0) + 1
    return found


def test_digits_are_60_20_20_whatever_the_seed():
    data, labels = open_data("digits", seed=5), load_digits().target
    fifth = sum(round(0.2 * int(n)) for n in np.bincount(labels))
    assert data.sizes() == {"train": 1797 - 2 * fifth, "val": fifth, "test": fifth} == open_data("digits").sizes()
    assert data.fingerprint() == open_data("digits", seed=0).fingerprint()
    assert data.classes == tuple("0123456789")
    np.testing.assert_array_equal(data.labels, labels)
    assert not data.mirror  # a mirrored 2 is no 2


def test_digits_are_scikit_learns_images():
    data, images = open_data("digits"), load_digits().images  # 0..16
    for i in (0, 7, 1796):
        found = data.read(i)
        assert found.shape == (8, 8, 3)
        assert np.abs(found[..., 0] / 255 - images[i] / 16).max() <= 0.5 / 255 + 1e-9
        assert data.keys[i] == f"digits/{i}"


def test_folder_is_indexed_by_class(pets):
    data = open_data(pets)
    assert data.classes == ("cat", "dog", "emu")
    assert counts(data) == {"train": {"cat": 8, "dog": 4, "emu": 4}, "val": {"cat": 2, "dog": 1, "emu": 1}}
    assert counts(data.whole()) == {"train": {"cat": 10, "dog": 5, "emu": 5}}
    for i in range(20):
        assert (data.read(i) == colour(i)).all()
        assert data.keys[i] == str(pets / data.classes[data.labels[i]] / f"{i - (0, 10, 15)[data.labels[i]]}.png")


def test_folder_ignores_what_is_no_image(pets):
    (pets / "cat" / "notes.txt").write_text("miaow")
    (pets / ".cache").mkdir()
    save(pets / "cat" / ".thumbnails" / "t.png", 99)
    save(pets / "cat" / "more" / "DEEP.JPG", 98)
    data = open_data(pets)
    assert len(data.keys) == 21
    assert data.classes == ("cat", "dog", "emu")


def test_links_and_loops_are_followed_once(pets, tmp_path):
    save(tmp_path / "elsewhere" / "1.png", 70)
    (pets / "yak").symlink_to(tmp_path / "elsewhere")
    (pets / "again").symlink_to(pets)  # would be all images once more, as one class
    (pets / "cat" / "up").symlink_to(pets)
    (pets / "cat" / "itself").symlink_to("itself")
    (pets / "a").symlink_to("b")
    (pets / "b").symlink_to("a")
    listing = list_source(pets)
    assert len(listing.items) == 21
    assert {item.class_name for item in listing.items} == {"cat", "dog", "emu", "yak"}
    assert listing.problems == ()
    why = {key.rpartition("/")[2]: why for key, why in ((e.key, e.why) for e in listing.ignored)}
    assert why["again"] == "is a link to a folder that holds it"
    assert why["up"] == "is a link to a folder"
    assert {"a", "b", "itself"} <= why.keys()


def test_what_is_no_file_is_not_waited_for(pets):
    os.mkfifo(pets / "cat" / "pipe.png")
    (pets / "cat" / "folder.png").mkdir()
    save(pets / "cat" / "folder.png" / "deep.png", 60)
    listing = list_source(pets)
    assert len(listing.items) == 21
    assert [(e.key.rpartition("/")[2], e.why) for e in listing.ignored] == [("pipe.png", "is not a file")]


def test_missing_file_is_named(pets):
    (pets / "cat" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png: No such file or directory; listed in"):
        open_data(pets)


def test_what_stands_beside_the_parts_is_ignored(tmp_path):
    for i, (part, name) in enumerate((p, c) for p in ("train", "test", "spare") for c in ("a", "b")):
        save(tmp_path / part / name / "1.png", i)
    (tmp_path / "README.txt").write_text("hello")
    listing = list_source(tmp_path)
    assert [item.part for item in listing.items] == ["test", "test", "train", "train"]
    assert {e.key.rpartition("/")[2]: e.why for e in listing.ignored} == {
        "README.txt": "stands beside train/",
        "spare": "stands beside train/",
    }


def test_class_of_the_validation_part_alone_is_named(tmp_path):
    for part, name in (("train", "cat"), ("train", "dog"), ("val", "cat"), ("val", "emu")):
        save(tmp_path / part / name / "1.png", 0)
    with pytest.raises(DataError, match=r"val/emu/1\.png: class 'emu' is not among the training classes"):
        open_data(tmp_path)


def test_names_that_differ_by_case_are_two_classes(pets):
    save(pets / "Cat" / "1.png", 80)
    assert list_source(pets).items[0].class_name == "Cat"
    assert {item.class_name for item in list_source(pets).items} == {"Cat", "cat", "dog", "emu"}


def test_hostile_names_are_read(tmp_path):
    for i, name in enumerate(("new\nline", "<b>&'\"", "\U0001f600", "x" * 250)):
        for k in range(3):
            save(tmp_path / name / f"{name[:200]}{k}.png", 3 * i + k)
    data = open_data(tmp_path)
    assert data.sizes() == {"train": 8, "val": 4, "test": 0}
    assert all((data.read(i) == data.read(i)[0, 0]).all() for i in range(12))


def test_shares_and_seed_are_obeyed(pets):
    assert open_data(pets, val=0, test="0.4").sizes() == {"train": 12, "val": 0, "test": 8}
    first, again, other = (open_data(pets, seed=seed).parts.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_small_data_are_all_trained_on_in_the_end_unless_a_part_is_asked_for(pets, monkeypatch):
    assert open_data(pets).refit
    assert open_data(pets, test=0.2).refit
    assert not open_data(pets, val=0.2).refit
    assert not open_data(pets, val=0).refit
    assert not open_data("digits").refit
    monkeypatch.setattr("transfer.data.dataset.FEW_IMAGES", 19)
    assert not open_data(pets).refit  # of many, those that are missing are missed less


def test_copies_of_an_image_stay_together(pets):
    for i in range(4):
        (pets / "cat" / f"copy{i}.png").write_bytes((pets / "cat" / "0.png").read_bytes())
    for seed in range(5):
        data = open_data(pets, seed=seed)
        same = [i for i, key in enumerate(data.keys) if "copy" in key or key.endswith("cat/0.png")]
        assert len(same) == 5
        assert len(set(data.parts[same].tolist())) == 1


def photograph(path, seed, *, side=40, quality=None, mirrored=False):
    """Smooth random colours, the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    picture = ImageOps.mirror(picture) if mirrored else picture
    picture.save(path, **({} if quality is None else {"quality": quality}))


def test_like_images_are_on_one_side_of_every_split(tmp_path):
    """Recompressed, resized and mirrored, within a class and with another label."""
    for i in range(24):
        photograph(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    for i in range(0, 12, 3):
        photograph(tmp_path / "ab"[i % 2] / f"{i}-small.jpg", i, side=30, quality=60)
        photograph(tmp_path / "ab"[i % 2] / f"{i}-mirrored.png", i, mirrored=True)
        photograph(tmp_path / "ba"[i % 2] / f"{i}-other.jpg", i, quality=80)
    for seed in range(6):
        data = open_data(tmp_path, val=0.2, test=0.2, seed=seed)
        sides: dict[str, set[str]] = {}
        for key, part in zip(data.keys, data.parts.tolist(), strict=True):
            sides.setdefault(re.split(r"[-.]", Path(key).name)[0], set()).add(part)
        assert len(sides) == 24
        assert all(len(parts) == 1 for parts in sides.values())
        assert {name: set(found) for name, found in counts(data).items()} == {part: {"a", "b"} for part in data.sizes()}


def test_images_without_duplicates_are_divided_as_by_content_alone(tmp_path):
    for i in range(30):
        photograph(tmp_path / "abc"[i % 3] / f"{i:02}.png", i)
    data = open_data(tmp_path, val=0.2, test=0.2, seed=4)
    expected = stratified_split(data.labels.tolist(), val=0.2, test=0.2, seed=4)
    assert data.parts.tolist() == expected.tolist()


def test_digits_are_divided_by_content_alone():
    """No perceptual hash is of use at 8 x 8 pixels, and what was measured on this split stays comparable."""
    data = open_data("digits")
    assert len(set(data.hashes)) == len(data.hashes)
    assert data.parts.tolist() == stratified_split(data.labels.tolist(), val=0.2, test=0.2).tolist()


def test_images_are_not_decoded_where_nothing_is_divided(pets, monkeypatch):
    monkeypatch.setattr("transfer.data.dataset.find_duplicates", None)  # calling it would fail
    assert open_data(pets, val=0, test=0).sizes() == {"train": 20, "val": 0, "test": 0}


def test_train_val_test_folders_are_the_parts(tmp_path):
    for i, (part, name) in enumerate((p, c) for p in ("train", "validation", "Test") for c in ("a", "b")):
        save(tmp_path / part / name / "1.png", i)
    data = open_data(tmp_path)
    assert counts(data) == {part: {"a": 1, "b": 1} for part in ("train", "val", "test")}


@pytest.mark.parametrize(("part", "share"), [("val", 0.1), ("test", "0"), ("test", 0.3)])
def test_a_share_of_a_part_that_is_there_is_refused(tmp_path, part, share):
    for i, (name, kind) in enumerate((p, c) for p in ("train", "val", "test") for c in ("a", "b")):
        save(tmp_path / name / kind / "1.png", i)
    message = rf"{part} {float(share):g}: .* names its {part} part itself, 2 images; leave {part} out"
    with pytest.raises(UsageError, match=message):
        open_data(tmp_path, **{part: share})


def test_train_folder_alone_gives_validation_and_no_test(tmp_path):
    for i in range(10):
        save(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", i)
    assert open_data(tmp_path).sizes() == {"train": 8, "val": 2, "test": 0}
    assert open_data(tmp_path, test=0.2).sizes() == {"train": 6, "val": 2, "test": 2}


def test_test_folder_of_its_own_is_the_test_part(pets, tmp_path):
    for i, name in enumerate(("emu", "cat")):
        save(tmp_path / "others" / name / "1.png", 50 + i)
    data = open_data(pets, test=str(tmp_path / "others"))
    assert counts(data)["test"] == {"cat": 1, "emu": 1}
    assert data.sizes() == {"train": 16, "val": 4, "test": 2}
    last = {data.classes[data.labels[i]]: data.read(i)[0, 0].tolist() for i in data.indices("test").tolist()}
    assert last == {"emu": colour(50), "cat": colour(51)}


def test_class_of_the_test_folder_that_was_not_trained_on_is_named(pets, tmp_path):
    save(tmp_path / "others" / "cats" / "1.png", 0)
    with pytest.raises(DataError, match="class 'cats' is not among the training classes; did you mean 'cat'"):
        open_data(pets, test=str(tmp_path / "others"))


def write_csv(path, rows, header=("path", "label", "split")):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def test_csv_names_paths_beside_it(pets):
    rows = [
        (f"{c}/{i}.png", c.upper(), part) for c in ("cat", "dog") for i, part in enumerate(("train", "val", "test"))
    ]
    data = open_data(write_csv(pets / "index.csv", rows))
    assert data.classes == ("CAT", "DOG")
    assert counts(data) == {part: {"CAT": 1, "DOG": 1} for part in ("train", "val", "test")}
    assert [data.read(i)[0, 0].tolist() for i in range(6)] == [colour(i) for i in (0, 1, 2, 10, 11, 12)]


def test_csv_without_splits_is_split(pets):
    rows = [(f"{c}/{i}.png", c) for c in ("cat", "dog") for i in range(5)]
    data = open_data(write_csv(pets / "index.csv", rows, header=("path", "label")))
    assert data.sizes() == {"train": 8, "val": 2, "test": 0}


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("size", "label"), [("big", "cat")], r"index\.csv: no column path; wanted path,label.*found 'size', 'label'"),
        (("path", "label"), [], r"index\.csv: no images"),
        (("path", "label"), [("cat/0.png", "")], r"index\.csv, line 2: path 'cat/0\.png', label ''; wanted both"),
        (("path", "label"), [("cat/0.png",)], r"line 2: .* wanted both"),
        (("path", "label"), [("cat/77.png", "cat")], r"77\.png: No such file or directory; listed in .*index\.csv"),
        (("path", "label"), [("cat/0.png", "cat")] * 3, "one class, 'cat'; wanted at least two"),
        (("path", "label", "split"), [("cat/0.png", "cat", "exam")], "line 2: split 'exam'; wanted train, val or test"),
        (
            ("path", "label", "split"),
            [("cat/0.png", "a", "train"), ("cat/1.png", "b", "")],
            "1 of 2 rows have no split",
        ),
        (
            ("path", "label", "split"),
            [("cat/0.png", "a", "test"), ("cat/1.png", "b", "test")],
            r"no training images; all are of the parts test",
        ),
    ],
)
def test_what_is_wrong_with_a_csv_is_said(pets, header, rows, message):
    path = write_csv(pets / "index.csv", rows, header=header)
    with pytest.raises(DataError, match=message):
        open_data(path)


def test_csv_in_another_encoding_is_named(pets):
    (pets / "index.csv").write_bytes("path,label\ncat/0.png,Ké\n".encode("latin-1"))
    listing = list_source(pets / "index.csv")
    assert [item.class_name for item in listing.items] == ["Ké"]
    assert any("is not in UTF-8 and was read as cp1252, such as 'Ké'" in note for note in listing.notes)
    (pets / "index.csv").write_bytes(b"path,label\ncat/0.png,K\x81\n")
    with pytest.raises(DataError, match=r"index\.csv: text neither in UTF-8 nor in Windows's cp1252"):
        open_data(pets / "index.csv")


@pytest.mark.parametrize("shape", [(10, 5, 5), (10, 5, 5, 3)])
def test_npz_holds_images_and_labels(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(10) % 2)
    data = open_data(tmp_path / "d.npz")
    assert data.classes == ("0", "1")
    assert data.sizes() == {"train": 8, "val": 2, "test": 0}
    expected = images[3] if images.ndim == 4 else np.stack([images[3]] * 3, axis=-1)
    np.testing.assert_array_equal(data.read(3), expected)


def test_npz_may_name_parts_and_classes(tmp_path):
    images, parts = (
        np.zeros((6, 4, 4), np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None],
        ["train", "Valid", "test"] * 2,
    )
    arrays = {"images": images, "labels": [0, 0, 0, 1, 1, 1], "split": parts, "classes": ["emu", "cat"]}
    np.savez(tmp_path / "d.npz", **arrays)
    data = open_data(tmp_path / "d.npz")
    assert data.classes == ("cat", "emu")
    assert counts(data) == {part: {"cat": 1, "emu": 1} for part in ("train", "val", "test")}
    assert data.classes[data.labels[0]] == "emu"
    for wrong, message in (
        ({"split": ["exam"] * 6}, "split 'exam'; wanted train, val or test for each of the 6 images"),
        ({"split": ["train"]}, "wanted train, val or test for each"),
        ({"classes": ["one"]}, "do not number the 1 names of 'classes'"),
        ({"labels": ["a"] * 6}, "do not number the 2 names"),
    ):
        np.savez(tmp_path / "d.npz", **(arrays | wrong))
        with pytest.raises(DataError, match=message):
            open_data(tmp_path / "d.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((4, 5, 5), np.float32) - 1, "labels": np.arange(4)},
        {"images": np.zeros((4, 5, 5), np.float32) + np.nan, "labels": np.arange(4)},
        {"images": np.zeros((4, 5, 5), np.uint16) + 256, "labels": np.arange(4)},
        {"images": np.zeros((4, 5, 5, 2), np.uint8), "labels": np.arange(4)},
        {"images": np.zeros((4, 25), np.uint8), "labels": np.arange(4)},
        {"images": np.zeros((4, 5, 5), np.uint8), "labels": np.arange(3)},
        {"images": np.zeros((4, 5, 5), np.uint8), "labels": np.ones((4, 2))},
        {"images": np.zeros((4, 5, 5), np.uint8), "labels": np.int64(4)},
        {"images": np.zeros((4, 5, 5), np.uint8)},
        {"images": np.zeros((0, 5, 5), np.uint8), "labels": np.zeros(0)},
    ],
)
def test_what_is_wrong_with_an_npz_is_said(tmp_path, arrays):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=r"d\.npz: (images .*; wanted uint8|wanted the arrays|no images)"):
        open_data(tmp_path / "d.npz")


@pytest.mark.parametrize("content", [b"junk", b"PK\x03\x04 cut short", b""])
def test_damaged_npz_is_named(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz: wanted the arrays 'images' and 'labels'"):
        open_data(tmp_path / "d.npz")


def write_parquet(path, columns, metadata=None):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'slimzoo[parquet]'")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
    return path


def test_parquet_names_paths_beside_it(pets):
    rows = [
        (f"{c}/{i}.png", c.upper(), part) for c in ("cat", "dog") for i, part in enumerate(("train", "val", "test"))
    ]
    path, label, split = map(list, zip(*rows, strict=True))
    table = write_parquet(pets / "index.parquet", {"path": path, "label": label, "split": split})
    same = open_data(write_csv(pets / "index.csv", rows))
    assert open_data(table).fingerprint() == same.fingerprint()
    assert open_data(table).keys == same.keys
    table = write_parquet(pets / "index.parquet", {"path": path, "label": [3, 3, 3, 5, 5, None]})
    with pytest.raises(DataError, match=r"index\.parquet, row 5: path 'dog/2\.png', label ''; wanted both"):
        open_data(table)
    with pytest.raises(DataError, match="no column path; wanted path,label"):
        open_data(write_parquet(pets / "index.parquet", {"label": label}))


def test_parquet_holds_images_as_hugging_face_writes_them(pets):
    files = [pets / "cat" / f"{i}.png" for i in range(3)] + [pets / "dog" / f"{i}.png" for i in range(3)]
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    features = {"image": {"_type": "Image"}, "label": {"names": ["feline", "canine"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = {"image": images, "label": [0, 0, 0, 1, 1, 1]}
    data = open_data(write_parquet(pets / "d.parquet", columns, metadata))
    assert data.classes == ("canine", "feline")
    assert [data.classes[label] for label in data.labels] == ["feline"] * 3 + ["canine"] * 3
    assert [data.read(i)[0, 0].tolist() for i in range(6)] == [colour(i) for i in (0, 1, 2, 10, 11, 12)]
    assert (
        data.hashes
        == open_data(
            write_csv(pets / "d.csv", [(f"{f.parent.name}/{f.name}", "ab"[i // 3], "") for i, f in enumerate(files)])
        ).hashes
    )
    plain = open_data(write_parquet(pets / "d.parquet", columns))
    assert plain.classes == ("0", "1")
    columns["image"][4] = {"bytes": None, "path": None}
    with pytest.raises(DataError, match=r"d\.parquet, row 4: image absent, label '1'; wanted both"):
        open_data(write_parquet(pets / "d.parquet", columns))


def test_parquet_that_is_none_is_named(tmp_path):
    pytest.importorskip("pyarrow", reason="pip install 'slimzoo[parquet]'")
    (tmp_path / "d.parquet").write_text("path,label")
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read as a Parquet file"):
        open_data(tmp_path / "d.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"d\.parquet: Parquet files need pyarrow; pip install 'slimzoo\[parquet\]'"):
        open_data(tmp_path / "d.parquet")


def test_unknown_name_is_answered_with_the_near_ones(pets):
    with pytest.raises(UsageError, match="no dataset 'digit': did you mean 'digits'"):
        open_data("digit")
    with pytest.raises(UsageError, match="did you mean 'pets'"):
        open_data(pets.with_name("pet"))
    (pets / "a.json").write_text("{}")
    with pytest.raises(
        UsageError, match=r"a\.json is neither a folder of images nor a \.csv, \.tsv, \.txt, \.parquet or \.npz"
    ):
        open_data(pets / "a.json")


def test_what_is_wrong_with_a_folder_is_said(pets, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images; wanted one folder a class"):
        open_data(tmp_path / "empty")
    save(tmp_path / "single" / "cat" / "1.png", 0)
    with pytest.raises(DataError, match="one class, 'cat'; wanted at least two"):
        open_data(tmp_path / "single")
    (pets / "yak").mkdir()
    with pytest.raises(DataError, match=r"yak: a class without images"):
        open_data(pets)


def test_fingerprint_changes_with_content_class_and_part(pets, tmp_path):
    first = open_data(pets).fingerprint()
    assert open_data(pets).fingerprint() == first
    assert open_data(pets, seed=1).fingerprint() != first
    renamed = pets.with_name("renamed")
    pets.rename(renamed)
    assert open_data(renamed).fingerprint() == first  # the place says nothing
    save(renamed / "cat" / "0.png", 77)
    assert open_data(renamed).fingerprint() != first


def test_labelled_data_are_whole_and_numbered_as_the_model(pets):
    data = open_labelled(pets, ("emu", "yak", "cat", "dog"))
    assert data.sizes() == {"train": 0, "val": 0, "test": 20}
    assert {data.classes[label] for label in data.labels.tolist()} == {"cat", "dog", "emu"}
    assert data.classes[data.labels[0]] == "cat"
    with pytest.raises(DataError, match="class 'emu' is not among the training classes"):
        open_labelled(pets, ("cat", "dog"))


def test_labelled_csv_may_be_all_test(pets):
    path = write_csv(pets / "index.csv", [("cat/0.png", "cat", "test"), ("dog/0.png", "dog", "test")])
    assert open_labelled(path, ("cat", "dog")).sizes() == {"train": 0, "val": 0, "test": 2}


def lineage_of(source, **arguments):
    arguments = {"val": None, "test": None, "seed": 0, **arguments}
    record = open_data(source, **arguments).record()
    return [{"verb": "fit", "arguments": {"data": str(source), **arguments}, "data": record}]


def config(lineage, classes=("cat", "dog", "emu")):
    preprocess = Preprocess(size=(28, 28), mean=(0.0,), std=(1.0,))
    return ModelConfig(architecture="lenet5", model_args={}, classes=classes, preprocess=preprocess, lineage=lineage)


def test_reopened_data_have_the_parts_of_the_fit(pets, monkeypatch):
    lineage, expected = lineage_of(pets, seed=3, test="0.4"), open_data(pets, seed=3, test="0.4").fingerprint()
    for again in (reopen(lineage), reopen(lineage, str(pets)), open_for(config(lineage), str(pets))):
        assert again is not None
        assert again.fingerprint() == expected
    assert reopen(lineage, "digits") is None


def test_the_same_folder_under_another_name_is_the_same_data(pets, monkeypatch):
    """Otherwise another split would be drawn, and test images would be trained on."""
    expected = open_data(pets, seed=3).fingerprint()
    monkeypatch.chdir(pets.parent)
    for name in ("pets", "./pets/", "pets/../pets"):
        assert open_for(config(lineage_of(pets, seed=3)), name).fingerprint() == expected


def test_images_that_were_moved_are_the_same_data(pets, tmp_path):
    """Otherwise all of them would be taken for new ones, those trained on among them."""
    lineage, expected = lineage_of(pets, seed=3), open_data(pets, seed=3).fingerprint()
    pets.rename(tmp_path / "moved")
    assert reopen(lineage, tmp_path / "moved").fingerprint() == expected
    save(tmp_path / "moved" / "cat" / "11.png", 99)
    assert reopen(lineage, tmp_path / "moved") is None, "other images, and not where the fit's were"


def test_images_that_changed_since_the_fit_are_refused(pets):
    """Otherwise the split would be another one, and some of its test images were trained on."""
    lineage = lineage_of(pets)
    Image.new("RGB", (9, 9), "purple").save(pets / "cat" / "new.png")
    with pytest.raises(DataError, match="has changed since the model was fitted to it"):
        open_for(config(lineage), pets)
    assert reopen(lineage) is None


def test_other_classes_are_refused(pets):
    with pytest.raises(UsageError, match=r"has 3 classes \(cat, dog, emu\), the model has 2: cat, cow; `slimzoo fit"):
        open_for(config([], ("cat", "cow")), pets)
