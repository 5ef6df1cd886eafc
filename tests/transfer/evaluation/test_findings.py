"""What `slimzoo eval` says, its JSON document, and the folder of findings."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from transfer.data.loader import LabelledPixels
from transfer.evaluation.evaluate import Evaluated, Evaluation
from transfer.evaluation.findings import confusions, describe, document, worst_first, write_findings

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


@dataclass(frozen=True)
class FewData:
    """As much of `Data` as is asked for."""

    name: str
    classes: tuple[str, ...]


def evaluated(labels, predictions, classes=CLASSES, keys=()):
    labels = np.array(labels)
    logits = 2 * np.eye(len(classes), dtype=np.float32)[np.array(predictions)]
    pixels = np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)
    return Evaluated(
        Evaluation(labels, logits), FewData("/data/zoo", classes), "test", LabelledPixels(pixels, labels, keys)
    )


# 3 of 4 ants, 1 of 2 bees, 4 of 4 cats, no dog, 0 of 1 elk, 2 of 2 foxes, 4 of 8 gnus
LABELS = [0] * 4 + [1] * 2 + [2] * 4 + [4] + [5] * 2 + [6] * 8
ANSWERS = [0, 0, 0, 2] + [1, 2] + [2] * 4 + [2] + [5] * 2 + [6] * 4 + [5] * 3 + [0]


def test_lines_name_the_worst_classes_and_the_most_frequent_confusions():
    found = evaluated(LABELS, ANSWERS)
    text = "\n".join(describe(found.evaluation, CLASSES))
    assert "top-1              66.7%  (95% interval 45.4% to 82.8%), 21 images" in text
    assert "mean recall of 6 classes, 1 more have no images" in text
    assert "dog" not in text
    order = [text.index(f"\n  {name} ") for name in ("elk", "gnu", "bee", "ant", "cat", "fox")]
    assert order == sorted(order)  # gnu before bee: as bad, with more images
    assert "elk   0.0%  (95% interval 0.0% to 79.3%), 1 image\n" in text
    assert "gnu for fox: 3 of 8" in text.splitlines()[-3]


def test_a_perfect_model_of_two_classes_has_neither_top_5_nor_confusions():
    lines = describe(evaluated([0, 1, 1], [0, 1, 1], ("cat", "dog")).evaluation, ("cat", "dog"))
    assert "top-1             100.0%" in lines[0]
    assert not any("top-5" in line or "taken for" in line for line in lines)


def test_of_many_classes_the_ten_worst_are_shown():
    classes = tuple(f"class {i:02}" for i in range(30))
    labels = np.repeat(np.arange(30), 4)
    predictions = np.where(np.arange(120) % 30 == 7, (labels + 1) % 30, labels)
    found = evaluated(labels, predictions, classes)
    lines = describe(found.evaluation, classes)
    assert "The 10 worst classes:" in lines
    assert sum("95% interval" in line and line.startswith("  class") for line in lines) == 10


def test_confusions_are_the_matrix_off_its_diagonal():
    found = evaluated(LABELS, ANSWERS).evaluation
    assert confusions(found)[0] == (6, 5, 3)
    assert sum(count for _, _, count in confusions(found)) == (~found.correct).sum()
    assert [score.name for score in worst_first(found.per_class(CLASSES))][-1] == "dog"


def test_the_document_is_json_and_begins_as_every_eval_does():
    read = json.loads(json.dumps(document(evaluated(LABELS, ANSWERS)), allow_nan=False))
    assert list(read)[:3] == ["top1", "top1_ci", "n"]
    assert read["part"] == "test"
    assert read["per_class"]["ant"] == {
        "recall": 0.75,
        "ci": [pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4)],
        "n": 4,
    }
    assert read["per_class"]["dog"] == {"recall": None, "ci": None, "n": 0}
    assert read["confusions"][0] == {"true": "gnu", "predicted": "fox", "n": 3}
    assert 0 < read["ece_by_chance"] < 1


@pytest.mark.parametrize("named", [True, False])
def test_the_folder_holds_three_pictures_and_a_line_an_image(tmp_path, named):
    keys = tuple(f'odd, "na\udcffme"/{i}.png' for i in range(len(LABELS))) if named else ()
    write_findings(evaluated(LABELS, ANSWERS, keys=keys), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "confusion.png",
        "reliability.png",
        "mistakes.png",
        "predictions.csv",
    }
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 100
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    names = [key.replace("\udcff", "\\udcff") for key in keys] or list(map(str, range(len(LABELS))))
    assert [line["path"] for line in lines] == names
    assert [CLASSES.index(line["label"]) for line in lines] == LABELS
    assert [CLASSES.index(line["predicted"]) for line in lines] == ANSWERS
    expected = np.exp(2) / (np.exp(2) + 6)
    assert [float(line["confidence"]) for line in lines] == pytest.approx([expected] * len(lines), abs=1e-6)
