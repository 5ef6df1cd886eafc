"""The pictures, by the colours that are in them, and drawn for every odd input that a run can give."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from transfer.evaluation.calibration import reliability
from transfer.evaluation.plots import BLUE, GREY, ORANGE, save_confusion, save_reliability, short_names
from transfer.training.curves import save_curves


def epoch(number, loss=1.0, val_top1=None, **more):
    return SimpleNamespace(epoch=number, train_loss=loss, val_top1=val_top1, seconds=1.0, **more)


def colours(path):
    """How many pixels there are of each colour, and the picture's size."""
    with Image.open(path) as picture:
        counts = picture.convert("RGB").getcolors(1 << 24)
        return {f"#{r:02x}{g:02x}{b:02x}": count for count, (r, g, b) in counts}, picture.size


def test_a_panel_for_each_figure_that_is_known(tmp_path):
    path, widths = tmp_path / "curves.png", []
    for more in ({}, {"val_top1": 0.5}, {"val_top1": 0.5, "lr": 1e-3, "grad_norm": None}):
        save_curves([epoch(1, 2.0, **more), epoch(2, 1.5, **more)], path)
        found, (width, _) = colours(path)
        widths.append(width)
        assert (BLUE in found, ORANGE in found, GREY in found) == (True, "val_top1" in more, "lr" in more)
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize(
    "history", [[epoch(1)], [epoch(i + 1, 1 / (i + 1), None if i % 5 else i / 60, lr=None) for i in range(60)]]
)
def test_curves_of_one_epoch_and_of_many_with_gaps(tmp_path, history):
    save_curves(history, tmp_path / "curves.png", title="a run of a model")
    found, _ = colours(tmp_path / "curves.png")
    assert found[BLUE] > 20


def test_a_perfect_matrix_is_a_dark_diagonal(tmp_path):
    dark = "#08519c"  # 100% of a class
    share = {}
    for classes in (2, 9):
        counts = np.diag(np.arange(1, classes + 1))
        save_confusion(counts, [f"c{i}" for i in range(classes)], tmp_path / "m.png", title="perfect")
        found, _ = colours(tmp_path / "m.png")
        cell = (1.5 * (80 if classes == 2 else 36)) ** 2
        share[classes] = found[dark] / (classes * cell)
    assert all(0.8 < value <= 1.02 for value in share.values()), share  # but for the numbers in it, and edges


def test_a_class_without_images_is_an_empty_row(tmp_path):
    counts = np.array([[5, 0], [0, 0]])
    save_confusion(counts, ["cat", "dog"], tmp_path / "m.png", title="cats only")
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_many_classes_stay_within_a_screen(tmp_path):
    rng, classes = np.random.default_rng(0), 250
    counts = np.diag(rng.integers(1, 20, classes))
    counts[rng.integers(0, classes, 99), rng.integers(0, classes, 99)] += 1
    save_confusion(counts, [f"c{i}" for i in range(classes)], tmp_path / "m.png", title="many")
    _, size = colours(tmp_path / "m.png")
    assert max(size) < 1700


NAMES = ['a<b>&"c"\'', "line\nbreak", "😀 smile", "lone \udcff byte", "x" * 300, "x" * 299, ""]


def test_names_of_any_kind_are_drawn(tmp_path):
    save_confusion(np.eye(len(NAMES), dtype=np.int64), NAMES, tmp_path / "m.png", title="names")
    _, size = colours(tmp_path / "m.png")
    assert max(size) < 1500


def test_short_names_are_short_and_tell_classes_apart():
    short = short_names(NAMES)
    assert len(set(short)) == len(NAMES)
    assert max(map(len, short)) <= 32
    assert short_names(["cat", "dog"]) == ["cat", "dog"]
    assert short_names(["a_very_long_name_of_a_class_that_ends_in_one"]) == ["a_very_long_n…at_ends_in_one"]


@pytest.mark.parametrize("count", [1, 400])
def test_reliability_is_drawn_from_the_table(tmp_path, count):
    confidences = np.random.default_rng(0).uniform(0.5, 1, count)
    save_reliability(reliability(confidences, confidences > 0.7), tmp_path / "r.png", title="too sure below 70%")
    found, _ = colours(tmp_path / "r.png")
    assert found[GREY] > 200  # the bars of the counts
    assert found[ORANGE] > 100  # the diagonal
