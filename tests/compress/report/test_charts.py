"""The accuracy chart: what it shows, that labels keep clear of each other, that it asks for nothing from outside."""

from __future__ import annotations

import io
import itertools
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from compress.report import charts
from compress.report.charts import FONT_PX, GLYPH_PX, HEIGHT, WIDTH, Budget, Point, accuracy_chart, to_png, to_svg

POINTS = [
    Point("fit", 0.981, (0.962, 0.991), 1.9, 16_800_000, "baseline"),
    Point("prune50", 0.976, (0.956, 0.987), 1.1, 5_100_000),
    Point("prune25", 0.979, (0.960, 0.990), 1.15, 9_300_000),
    Point("int8", 0.979, (0.960, 0.990), 0.9, 4_300_000, "chosen"),
    Point("<script>alert(1)</script>", 0.93, (0.90, 0.95), 0.6, 400_000),
]


@pytest.fixture(scope="module")
def svg():
    return to_svg(accuracy_chart(POINTS, cost_title="latency, ms", top1_title="top-1, %"))


def test_svg_is_one_well_formed_element_without_an_address(svg):
    assert ElementTree.fromstring(svg).tag == "svg"
    assert "http" not in svg
    assert "<script" not in svg


def test_svg_names_models_axes_and_roles(svg):
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag == "text"]
    assert {"fit · baseline", "prune50", "prune25", "int8 · chosen", "<script>alert(1)</script>"} <= set(texts)
    assert {"latency, ms", "top-1, %"} <= set(texts)


def test_area_of_a_circle_is_the_size_of_the_file():
    found = accuracy_chart(POINTS, cost_title="", top1_title="").to_dict()["datasets"].values()
    (records,) = (records for records in found if "area" in records[0])
    area = {record["role"]: record["area"] for record in records}
    assert area["baseline"] / area["chosen"] == pytest.approx(16_800_000 / 4_300_000)


def test_front_is_what_nothing_beats():
    """By comparing each with each."""
    rng = np.random.default_rng(0)
    many = [
        Point(str(i), top1, (top1, top1), cost, 1) for i, (top1, cost) in enumerate(rng.integers(1, 9, (40, 2)) / 10)
    ]
    beaten = {
        point.name
        for point in many
        for other in many
        if other.cost <= point.cost
        and other.top1 >= point.top1
        and (other.cost, other.top1) != (point.cost, point.top1)
    }
    best = charts.front(many)
    assert {(point.cost, point.top1) for point in best} == {(p.cost, p.top1) for p in many if p.name not in beaten}
    assert [point.cost for point in best] == sorted({point.cost for point in best}), "each once, the cheapest first"


def test_budget_is_drawn_with_its_words_and_in_sight():
    budget = Budget(0.85, "13.1 points below fit")
    drawn = accuracy_chart(POINTS, cost_title="", top1_title="", budget=budget)
    texts = [element.text for element in ElementTree.fromstring(to_svg(drawn)).iter() if element.tag == "text"]
    assert "13.1 points below fit" in texts
    assert charts._Plane.around(POINTS, [0.85]).y[0] < 85


def test_what_stands_for_a_model_is_known_by_its_number():
    points = [replace(point, number=number) for number, point in enumerate(POINTS)]
    svg = to_svg(accuracy_chart(points, cost_title="", top1_title=""))
    for number, point in enumerate(points):
        mine = [e for e in ElementTree.fromstring(svg).iter() if e.get("class") == f"model-{number}"]
        assert len(mine) == 3, "its circle, its interval, its name"
        assert all(element.get("aria-label").startswith(point.label) for element in mine)
    assert "#0#" not in svg


def test_png_is_white_with_something_on_it():
    image = Image.open(io.BytesIO(to_png(accuracy_chart(POINTS, cost_title="ms", top1_title="%"), scale=1)))
    colours = image.convert("RGB").getcolors(1 << 20)
    assert image.width > WIDTH
    assert max(colours)[1] == (255, 255, 255)
    assert len(colours) > 50


def boxes(points):
    plane = charts._Plane.around(points)
    largest = max(point.size_bytes for point in points)
    for point, (x, y) in charts._place(points, plane, largest):
        half = GLYPH_PX * len(point.label) / 2
        yield x - half, y - FONT_PX / 2, x + half, y + FONT_PX / 2


CROWD = [Point(f"variant-{i}", 0.97, (0.96, 0.98), 1.0 + 0.02 * i, 1_000_000) for i in range(6)]


MANY = [  # two of them with a say, two of the others on the front
    Point("fit", 0.97, (0.96, 0.98), 3.0, 9_000_000, "baseline"),
    Point("pruned-7-less-9-longer-int8", 0.975, (0.96, 0.98), 1.0, 1_000_000, "chosen"),
    Point("smallest", 0.9, (0.88, 0.92), 0.1, 200_000),
    Point("best", 0.98, (0.97, 0.99), 2.9, 8_000_000),
    *(Point(f"beaten-{i}", 0.96, (0.95, 0.97), 1.5 + 0.1 * i, 1_000_000) for i in range(14)),
]


def test_of_many_models_those_on_the_front_have_names():
    svg = to_svg(accuracy_chart([replace(p, number=i) for i, p in enumerate(MANY)], cost_title="", top1_title=""))
    texts = [element.text for element in ElementTree.fromstring(svg).iter() if element.tag == "text"]
    assert {"fit · baseline", "pruned-7-less-9-longer-int8 · chosen", "smallest", "best"} <= set(texts)
    assert not any("beaten" in text for text in texts if text)
    assert svg.count("beaten-13: 96.0%") == 2, "its circle and its interval say what they are"


@pytest.mark.parametrize("points", [POINTS, CROWD, MANY, POINTS[:1]])
def test_labels_are_inside_and_apart(points):
    placed = list(boxes(points))
    assert placed
    for left, top, right, bottom in placed:
        assert charts.MARGIN_PX <= left <= right <= WIDTH
        assert 0 <= top <= bottom <= HEIGHT
    for a, b in itertools.combinations(placed, 2):
        assert charts._overlap(a, b) == 0


def test_a_long_name_is_cut():
    assert Point("x" * 80, 0.9, (0.8, 1.0), 1.0, 1).label == "x" * 27 + "…"


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no points"):
        accuracy_chart([], cost_title="", top1_title="")
