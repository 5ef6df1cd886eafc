"""Charts for the report, as SVG and PNG. No network, no pandas; the SVG takes its text colour from the page."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

WIDTH, HEIGHT = 520, 300
SMALL_PX = 12  # letters at the axes
NAMES_PX = 180  # for the names of rows, in charts that have some
INK = "currentColor"
AXIS: dict[str, Any] = {
    **dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor", "gridColor"), INK),
    "labelFontSize": SMALL_PX,
    "titleFontSize": SMALL_PX,
    "titleFontWeight": "normal",
}
COLOURS = {"baseline": "#8a8f98", "chosen": "#1f9d63", "variant": "#4c86c6"}
LARGEST_PX2 = 2200  # area of the bubble of the largest file; the others in proportion
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
LONGEST = 28  # letters of a name in the chart
MOST_NAMED = 6  # models: of more, those of the front alone have their names beside them, the table has all
TO_100 = "datum.value > 100 ? '' : datum.label"  # above there is room for names alone
MARGIN_PX = 4  # between the axis and a name
FONT_PX, GLYPH_PX = 13, 7.0  # the mean advance of a letter at that size, on the wide side


def short(name: str) -> str:
    """A model's name, as far as there is room for it."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


@dataclass(frozen=True)
class Point:
    """A model in the chart: its accuracy with interval (shares, 0..1), what it costs, and how large its file is.

    `number` is its place in the report's table.
    """

    name: str
    top1: float
    top1_ci: tuple[float, float]
    cost: float
    size_bytes: int
    role: Literal["baseline", "chosen", "variant"] = "variant"
    number: int = 0

    @property
    def said(self) -> str:
        """For those who do not see it; its number goes before, see `to_svg`."""
        lo, hi = self.top1_ci
        return f"#{self.number}# {self.label}: {self.top1:.1%} ({lo:.1%} to {hi:.1%}), {self.cost:.3g}"

    @property
    def label(self) -> str:
        name = short(self.name)
        return name if self.role == "variant" else f"{name} · {self.role}"


@dataclass(frozen=True)
class Budget:
    """The least accuracy (0..1) that is good enough, and what that is, in words."""

    least: float
    said: str


def front(points: Sequence[Point]) -> list[Point]:
    """Those than which none costs no more and is no less accurate, the cheapest first: Pareto's front."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def named(points: Sequence[Point]) -> list[Point]:
    """Those whose names are written beside them: all, or what there is to choose from where they are many."""
    if len(points) <= MOST_NAMED:
        return list(points)
    best = front(points)
    return [point for point in points if point.role != "variant" or point in best]


def accuracy_chart(
    points: Sequence[Point], *, cost_title: str, top1_title: str, budget: Budget | None = None
) -> alt.LayerChart:
    """Accuracy in percent with its 95% interval over a cost; the area of a bubble is the size of the file.

    A stepped line joins the front, a dashed one is the budget, unless it is so far down that models would shrink.
    """
    if not points:
        raise ValueError("no points: wanted at least one model with an accuracy and a cost")
    lo, hi = min(point.top1_ci[0] for point in points), max(point.top1_ci[1] for point in points)
    if budget is not None and budget.least < lo - (hi - lo):
        budget = None
    largest = max(point.size_bytes for point in points)
    plane = _Plane.around(points, [] if budget is None else [budget.least])
    records = [
        {
            "said": point.said,
            "role": point.role,
            "cost": point.cost,
            "top1": 100 * point.top1,
            "lo": 100 * point.top1_ci[0],
            "hi": 100 * point.top1_ci[1],
            "area": LARGEST_PX2 * point.size_bytes / largest,
        }
        # large bubbles first, so that small ones lie on top of them
        for point in sorted(points, key=lambda point: -point.size_bytes)
    ]
    x_scale = alt.Scale(domain=list(plane.x), nice=False, zero=False)
    y_scale = alt.Scale(domain=list(plane.y), nice=False, zero=False)
    x = alt.X("cost:Q", scale=x_scale, axis=alt.Axis(title=cost_title, tickCount=6))
    colour = alt.Color("role:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), legend=None)
    base = alt.Chart({"values": records}).encode(description="said:N")
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.75).encode(
        x=x,
        y=alt.Y("lo:Q", scale=y_scale, axis=alt.Axis(title=top1_title, tickCount=6, labelExpr=TO_100)),
        y2="hi:Q",
        color=colour,
    )
    bubbles = base.mark_circle(opacity=0.55, strokeWidth=1.5).encode(
        x=x, y=alt.Y("top1:Q", scale=y_scale), size=alt.Size("area:Q", scale=None), color=colour, stroke=colour
    )
    placed = _place(points, plane, largest, budget)
    names = _names({point: (plane.cost(x), plane.percent(y)) for point, (x, y) in placed}, x_scale, y_scale)
    chart: alt.LayerChart = (
        alt.layer(*_lines(points, plane, budget, x, y_scale), bars, bubbles, names)
        .properties(width=WIDTH, height=HEIGHT, background="transparent", padding=6)
        .configure(font=FONT)
        .configure_axis(**AXIS, gridOpacity=0.12, titlePadding=8)
        .configure_view(stroke=None)
    )
    return chart


def _names(places: Mapping[Point, tuple[float, float]], x_scale: alt.Scale, y_scale: alt.Scale) -> alt.Chart:
    """Each at its place, a cost and a percentage."""
    texts = [{"label": point.label, "said": point.said, "x": x, "y": y} for point, (x, y) in places.items()]
    x, y = alt.X("x:Q", scale=x_scale), alt.Y("y:Q", scale=y_scale)
    text = alt.Chart({"values": texts}).mark_text(fontSize=FONT_PX, fill=INK)
    drawn: alt.Chart = text.encode(description="said:N", x=x, y=y, text="label:N")
    return drawn


def _lines(
    points: Sequence[Point], plane: _Plane, budget: Budget | None, x: alt.X, y_scale: alt.Scale
) -> list[alt.Chart]:
    """The front, from where there is more than one model on it, and the budget with its words."""
    lines, best = [], front(points)
    if len(best) > 1:
        # from the cheapest to the edge: from each on, that accuracy is to be had
        steps = [{"cost": point.cost, "top1": 100 * point.top1} for point in best]
        steps.append({"cost": plane.x[1], "top1": 100 * best[-1].top1})
        drawn = alt.Chart({"values": steps}).mark_line(interpolate="step-after", stroke=INK, opacity=0.35)
        lines.append(drawn.encode(x=x, y=alt.Y("top1:Q", scale=y_scale)))
    if budget is not None:
        cost = plane.cost(_words(points, plane, budget)[0])
        here = alt.Chart({"values": [{"least": 100 * budget.least, "cost": cost, "said": budget.said}]})
        y = alt.Y("least:Q", scale=y_scale)
        lines.append(here.mark_rule(stroke=INK, opacity=0.6, strokeDash=[5, 4]).encode(y=y))
        words = here.mark_text(align="left", baseline="top", dy=4, fontSize=SMALL_PX, fill=INK, opacity=0.8)
        lines.append(words.encode(x=x, y=y, text="said:N"))
    return lines


def to_svg(chart: Any) -> str:
    """An <svg> element to put into a page. Inline SVG needs no namespaces, so it is left without an address.

    What stands for the model of a number is of the class model-NUMBER, by which the page joins it to its row.
    """
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
    svg = re.sub(r'aria-label="#(\d+)# ', r'class="model-\1" aria-label="', svg)
    return re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)


def to_png(chart: Any, *, scale: float = 2.0) -> bytes:
    """Draw the same in black on white, at `scale` pixels per point."""
    import vl_convert

    spec = _with_ink(chart.to_dict(), "#1b1f24") | {"background": "white"}
    png: bytes = vl_convert.vegalite_to_png(spec, scale=scale)
    return png


def _with_ink(spec: Any, colour: str) -> Any:
    if isinstance(spec, dict):
        return {key: _with_ink(value, colour) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_with_ink(value, colour) for value in spec]
    return colour if spec == INK else spec


# --- where the labels go ----------------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels from the upper left corner


@dataclass(frozen=True)
class _Plane:
    """The domains of both axes, and the way between them and pixels."""

    x: tuple[float, float]
    y: tuple[float, float]

    @classmethod
    def around(cls, points: Sequence[Point], besides: Sequence[float] = ()) -> _Plane:
        """Args: besides: accuracies that are to be seen too."""
        costs = [point.cost for point in points]
        lo = min([*besides, *(point.top1_ci[0] for point in points)])
        hi = max([*besides, *(point.top1_ci[1] for point in points)])
        pad = max(0.12 * (hi - lo), 0.005)
        # costs from 0, so that a distance is a difference; accuracies as near as they allow
        return cls((0.0, 1.15 * max(costs)), (100 * (lo - pad), 100 * (hi + pad)))

    def at(self, cost: float, top1: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        return WIDTH * (cost - x0) / (x1 - x0), HEIGHT * (y1 - 100 * top1) / (y1 - y0)

    def cost(self, x_px: float) -> float:
        return self.x[0] + (self.x[1] - self.x[0]) * x_px / WIDTH

    def percent(self, y_px: float) -> float:
        return self.y[1] - (self.y[1] - self.y[0]) * y_px / HEIGHT


def _place(
    points: Sequence[Point], plane: _Plane, largest: int, budget: Budget | None = None
) -> list[tuple[Point, tuple[float, float]]]:
    """The centre of each label in pixels: as near to its bubble as leaves bubbles, bars and other labels free."""
    centres = [plane.at(point.cost, point.top1) for point in points]
    radii = [math.sqrt(LARGEST_PX2 * point.size_bytes / largest / math.pi) for point in points]
    bars = [_bar(point, plane) for point in points]
    circles: list[Box] = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    bodies, taken = list(zip(bars, circles, strict=True)), bars + circles
    taken += _drawn(points, plane, budget)
    placed, with_names = [], named(points)
    for point, (x, y), r, body in zip(points, centres, radii, bodies, strict=True):
        if point not in with_names:
            continue
        half = GLYPH_PX * len(point.label) / 2
        places = [
            (_inside(x + dx * (r + 5 + half), half), y + dy * (r + 4 + FONT_PX / 2) + step * FONT_PX)
            for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6)
            for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
        ]
        boxes = [(px - half, py - FONT_PX / 2 - 1, px + half, py + FONT_PX / 2 + 1) for px, py in places]
        costs = [
            sum(_overlap(box, other) for other in taken)
            + 10 * _outside(box)
            # a label that is nearer to another model would be read as that one's
            + 50 * any(_nearest(box, other) < _nearest(box, body) for other in bodies if other != body)
            for box in boxes
        ]
        best = min(range(len(places)), key=costs.__getitem__)  # the first of equals: they are in order of liking
        taken.append(boxes[best])
        placed.append((point, places[best]))
    return placed


def _drawn(points: Sequence[Point], plane: _Plane, budget: Budget | None) -> list[Box]:
    """The lines of the front and of the budget, and the words of the latter."""
    boxes: list[Box] = []
    corners = [plane.at(point.cost, point.top1) for point in front(points)]
    if len(corners) > 1:
        for (x, y), (end, up) in itertools.pairwise([*corners, (float(WIDTH), corners[-1][1])]):
            boxes += [(x, y - 1, end, y + 1), (end - 1, up, end + 1, y)]
    if budget is not None:
        y = plane.at(0.0, budget.least)[1]
        boxes += [(0.0, y - 1, float(WIDTH), y + 1), _words(points, plane, budget)]
    return boxes


def _words(points: Sequence[Point], plane: _Plane, budget: Budget) -> Box:
    """Where the words of the budget are: under its line, as far to the left as they cross fewest intervals."""
    y, wide = plane.at(0.0, budget.least)[1], GLYPH_PX * len(budget.said)
    places = [float(x) for x in range(MARGIN_PX, max(MARGIN_PX + 1, int(WIDTH - wide)), 10)]
    boxes: list[Box] = [(x, y, x + wide, y + SMALL_PX + 6) for x in places]
    bars = [_bar(point, plane) for point in points]
    return min(boxes, key=lambda box: sum(_overlap(box, bar) > 0 for bar in bars))


def _bar(point: Point, plane: _Plane) -> Box:
    """Its interval."""
    x, (lo, hi) = plane.at(point.cost, 0.0)[0], (plane.at(0.0, end)[1] for end in point.top1_ci)
    return x - 1, hi, x + 1, lo


def _distance(a: Box, b: Box) -> float:
    """Between the nearest edges; 0 where they touch."""
    return math.hypot(max(a[0] - b[2], b[0] - a[2], 0.0), max(a[1] - b[3], b[1] - a[3], 0.0))


def _nearest(box: Box, parts: Sequence[Box]) -> float:
    return min(_distance(box, part) for part in parts)


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _inside(x: float, half: float) -> float:
    """The centre of a name, moved so far that none of its half sticks out, where there is room for it."""
    return max(MARGIN_PX + half, min(x, WIDTH - half))


def _outside(box: Box) -> float:
    left, top, right, bottom = box
    return sum(max(0.0, beyond) for beyond in (MARGIN_PX - left, -top, right - WIDTH, bottom - HEIGHT))
