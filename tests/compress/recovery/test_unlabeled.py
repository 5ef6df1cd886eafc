"""Images without labels: which are taken, what they are labelled as, and that what is trained sees them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from compress import distill, prune
from compress.cli import app
from compress.recovery.unlabeled import joining
from transfer.data.fitted_data import open_for
from transfer.data.parts import read_pixels
from transfer.data.seen import pixel_hashes
from transfer.fitting.step import fit
from zoo.errors import DataError, UsageError
from zoo.files.model_directory import load_model


def draw(folder, count, seed):
    """Pictures of one colour in three, with noise."""
    rng, folder = np.random.default_rng(seed), folder
    folder.mkdir(parents=True)
    for i in range(count):
        image = rng.integers(0, 160, (32, 32, 3))
        image[:, :, i % 3] += 95
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """photos/ in three classes, a model of them, and others/ of which nobody says what they show."""
    root = tmp_path_factory.mktemp("unlabeled")
    draw(root / "all", 30, 0)
    for i in range(30):
        name = root / "photos" / "red green blue".split()[i % 3]
        name.mkdir(parents=True, exist_ok=True)
        (root / "all" / f"{i}.png").rename(name / f"{i}.png")
    draw(root / "others", 12, 1)
    fit(root / "photos", model="lenet5", method="scratch", size=32, epochs=4, out=root / "m")
    return root


def join(root, source, **given):
    loaded = load_model(root / "m")
    known = open_for(loaded.config, root / "photos")
    pixels = read_pixels(known, loaded.config.preprocess, None)
    more = joining(source, known, loaded, **given)
    return pixels, lambda pixels: more(pixels, loaded.config.preprocess)


def test_they_are_labelled_by_the_teacher_and_join_those_to_train_on(root):
    pixels, more = join(root, root / "others")
    found = more(pixels)
    assert len(found.train) == len(pixels.train) + 12
    assert found.val is pixels.val
    loaded = load_model(root / "m")
    added = found.train.pixels[len(pixels.train) :]
    with torch.no_grad():
        logits = loaded.model(torch.from_numpy(loaded.config.preprocess.normalize(added)))
    np.testing.assert_array_equal(found.train.labels[len(pixels.train) :], logits.argmax(1).numpy())


def test_images_that_are_known_are_not_taken_again(root, tmp_path):
    """Least of all those by which accuracy is measured."""
    for i, file in enumerate([*sorted((root / "photos").rglob("*.png")), *sorted((root / "others").iterdir())[:2]]):
        (tmp_path / f"{i}.png").write_bytes(file.read_bytes())
    pixels, more = join(root, tmp_path)
    assert len(more(pixels).train) == len(pixels.train) + 2
    with pytest.raises(DataError, match="all of its images are among those"):
        join(root, root / "photos")


def test_prune_and_distill_learn_from_them(root, tmp_path):
    given = {"data": root / "photos", "macs": 0.7, "recover": 1, "criterion": "l2"}
    without = prune(root / "m", **given)
    step = prune(root / "m", **given, unlabeled=root / "others", out=tmp_path / "pruned")
    assert step.record["arguments"]["unlabeled"] == str(root / "others")
    changed = zip(without.model.parameters(), step.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in changed)
    pixels, more = join(root, root / "others")
    added = more(pixels).train.take(np.arange(len(pixels.train), len(pixels.train) + 12))
    for config, part in ((step.config, "train"), (without.config, None)):  # so that `eval` knows them
        assert {config.seen.part_of(digest) for digest in pixel_hashes(added)} == {part}
    student = [
        distill("lenet5", teacher=root / "m", data=root / "photos", epochs=1, unlabeled=unlabeled).model
        for unlabeled in (None, root / "others")
    ]
    assert not torch.equal(*(model.state_dict()["conv1.weight"] for model in student))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--unlabeled", "nowhere", "--data", "photos"], "nowhere"),
        (["--unlabeled", "others", "--recover", "0"], "name those with data"),
    ],
)
def test_bad_input(root, monkeypatch, options, said):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["prune", "m", *options, "--out", "x"])
    assert isinstance(done.exception, UsageError | DataError | SystemExit)
    assert said in f"{done.exception} {done.output}"
    assert not (root / "x").exists()
