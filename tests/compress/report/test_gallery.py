"""The images whose answer changed, as the report shows them: the right ones, and none where that is not sure."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from compress.cli import app
from compress.report.gallery import MOST
from compress.report.report import build_report
from transfer.data.dataset import open_data

HOSTILE = "<script>alert('x')&\n🙂"
EACH = 40  # images of each class


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes, each image of a shade of its own."""
    folder = tmp_path_factory.mktemp("gallery") / "photos"
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = rng.integers(-6, 7, (24, 24, 3)) + np.array([3 * i + 20, 100 * number + 50, 128])
            file = f"{HOSTILE}{i}.png" if (number, i) == (1, 3) else f"{i:02}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / file, "PNG")
    return folder


@pytest.fixture
def models(photos, tmp_path):
    """Write models that answer the validation images so, and give the images with the folder."""
    data = open_data(photos, val=0.5)

    def write(before, after):
        for name, verbs, correct in (("fit", ["fit"], before), ("int8", ["fit", "quantize"], after)):
            part = {"top1": correct.count("1") / len(correct), "n": len(correct), "correct": correct}
            step = {"arguments": {"data": str(photos), "val": 0.5, "test": None, "seed": 0, "layout": "auto"}}
            step |= {"data": data.record(), "metrics": {"before": None, "after": {"val": part, "size_bytes": 10}}}
            ours = {"format": 1, "primary": "m", "preprocess": {}, "surgery": []}
            ours["lineage"] = [step | {"verb": verb} for verb in verbs]
            (tmp_path / name).mkdir()
            text = json.dumps({"architecture": "x", "label_names": ["cat", "dog"], "slimzoo": ours})
            (tmp_path / name / "config.json").write_text(text, encoding="utf-8")
        return tmp_path

    return data, write


def shown(html):
    """The pictures of a page, each with its words."""
    found = re.findall(r'<figure class="(\w+)"><img src="data:image/jpeg;base64,([^"]+)"[^>]*>(.*?)</figure>', html)
    return [(kind, Image.open(io.BytesIO(base64.b64decode(data))), words) for kind, data, words in found]


def test_the_images_shown_are_those_that_changed(models):
    data, write = models
    where = data.indices("val")
    n = len(where)
    assert n > 20
    lost, gained = [2, 7, n - 1], [0, 5]
    before = "".join("0" if i in gained else "1" for i in range(n))
    after = "".join("0" if i in lost else "1" for i in range(n))
    report = build_report(write(before, after), max_drop=100)
    pictures = shown(report.html.read_text(encoding="utf-8"))
    assert [kind for kind, _, _ in pictures] == ["lost"] * 3 + ["gained"] * 2
    for (_, picture, words), i in zip(pictures, lost + gained, strict=True):
        pixels = data.read(int(where[i]))
        assert np.abs(np.asarray(picture).mean((0, 1)) - pixels.mean((0, 1))).max() < 1.5  # 3 from the next shade
        assert data.classes[data.labels[where[i]]] in words
    said = f"Of {n} images, `int8` answers 3 wrong that `fit` had right, and 2 right that it had wrong."
    assert said in report.markdown.read_text(encoding="utf-8")
    assert "![Which images changed](report-changed.png)" in report.markdown.read_text(encoding="utf-8")
    assert (report.markdown.parent / "report-changed.png").exists()
    sections = {part["title"]: part for part in json.loads(report.json.read_text(encoding="utf-8"))["sections"]}
    assert sections["Which images changed"]["picture"] == "report-changed.png"


def test_a_name_of_a_file_is_text(models):
    data, write = models
    n = len(data.indices("val"))
    html = build_report(write("1" * n, "0" * n), max_drop=100).html.read_text(encoding="utf-8")
    assert "<script" not in html
    assert len(shown(html)) == MOST
    assert f"; {MOST} of them." in html


def test_none_is_shown_where_images_are_not_wanted_or_answers_are_of_others(models):
    data, write = models
    n = len(data.indices("val"))
    out = write("1" * (n - 1), "0" * (n - 1))
    assert shown(build_report(out, max_drop=100).html.read_text(encoding="utf-8")) == []


def test_the_command_shows_them_unless_told_not_to(models):
    data, write = models
    n = len(data.indices("val"))
    out = write("1" * n, "0" + "1" * (n - 1))
    for words, count in (((), 1), (("--no-images",), 0)):
        result = CliRunner().invoke(app, ["report", str(out), "--max-drop", "100", *words])
        assert result.exit_code == 0, result.output
        html = (out / "report.html").read_text(encoding="utf-8")
        assert len(shown(html)) == count
        assert "none is shown" not in html


def test_images_that_changed_since_are_not_shown_and_that_is_said(models, photos):
    data, write = models
    n = len(data.indices("val"))
    out = write("1" * n, "0" * n)
    file, kept = photos / "cat" / "00.png", (photos / "cat" / "00.png").read_bytes()
    Image.new("RGB", (24, 24), "red").save(file)
    try:
        html = build_report(out, max_drop=100).html.read_text(encoding="utf-8")
    finally:
        file.write_bytes(kept)
    assert shown(html) == []
    assert "not as they were, so none is shown" in html


def test_the_data_card(models):
    data, write = models
    n = len(data.indices("val"))
    text = build_report(write("1" * n, "1" * n), max_drop=100).markdown.read_text(encoding="utf-8")
    assert f"| images | {2 * EACH} (train {2 * EACH - n}, val {n}) |" in text
    assert f"| classes | 2, of {EACH} images (`cat`) to {EACH} (`dog`), the median {EACH} |" in text
    assert "| pixels | 24 x 24 the median, 24 x 24 to 24 x 24 |" in text
