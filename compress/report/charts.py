"""Charts for the report, as SVG and PNG. No network, no pandas; the SVG takes its text colour from the page."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

WIDTH, HEIGHT = 620, 340
INK = "currentColor"
COLOURS = {"baseline": "#8a8f98", "chosen": "#1f9d63", "variant": "#4c86c6"}
LARGEST_PX2 = 2200  # area of the bubble of the largest file; the others in proportion
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
LONGEST = 28  # letters of a name in the chart
FONT_PX, GLYPH_PX = 12, 6.5  # the mean advance of a letter at that size, on the wide side


@dataclass(frozen=True)
class Point:
    """A model in the chart: its accuracy with interval (shares, 0..1), what it costs, and how large its file is."""

    name: str
    top1: float
    top1_ci: tuple[float, float]
    cost: float
    size_bytes: int
    role: Literal["baseline", "chosen", "variant"] = "variant"

    @property
    def label(self) -> str:
        name = self.name if len(self.name) <= LONGEST else self.name[: LONGEST - 1] + "…"
        return name if self.role == "variant" else f"{name} · {self.role}"


def accuracy_chart(points: Sequence[Point], *, cost_title: str, top1_title: str) -> alt.LayerChart:
    """Accuracy in percent with its 95% interval over a cost; the area of a bubble is the size of the file."""
    if not points:
        raise ValueError("no points: wanted at least one model with an accuracy and a cost")
    largest = max(point.size_bytes for point in points)
    plane = _Plane.around(points)
    labels = _place(points, plane, largest)
    records = [
        {
            "label": point.label,
            "role": point.role,
            "cost": point.cost,
            "top1": 100 * point.top1,
            "lo": 100 * point.top1_ci[0],
            "hi": 100 * point.top1_ci[1],
            "area": LARGEST_PX2 * point.size_bytes / largest,
            "label_x": plane.cost(x),
            "label_y": plane.percent(y),
        }
        # large bubbles first, so that small ones lie on top of them
        for point, (x, y) in sorted(zip(points, labels, strict=True), key=lambda pair: -pair[0].size_bytes)
    ]
    x_scale = alt.Scale(domain=list(plane.x), nice=False, zero=False)
    y_scale = alt.Scale(domain=list(plane.y), nice=False, zero=False)
    x = alt.X("cost:Q", scale=x_scale, axis=alt.Axis(title=cost_title, tickCount=6))
    colour = alt.Color("role:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), legend=None)
    base = alt.Chart({"values": records})
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.75).encode(
        x=x, y=alt.Y("lo:Q", scale=y_scale, axis=alt.Axis(title=top1_title, tickCount=6)), y2="hi:Q", color=colour
    )
    bubbles = base.mark_circle(opacity=0.55, strokeWidth=1.5).encode(
        x=x, y=alt.Y("top1:Q", scale=y_scale), size=alt.Size("area:Q", scale=None), color=colour, stroke=colour
    )
    text = base.mark_text(fontSize=FONT_PX, fill=INK).encode(
        x=alt.X("label_x:Q", scale=x_scale), y=alt.Y("label_y:Q", scale=y_scale), text="label:N"
    )
    ink = {"labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK, "gridColor": INK}
    chart: alt.LayerChart = (
        alt.layer(bars, bubbles, text)
        .properties(width=WIDTH, height=HEIGHT, background="transparent", padding=6)
        .configure(font=FONT)
        .configure_axis(**ink, gridOpacity=0.12, titleFontWeight="normal", labelFontSize=11, titlePadding=8)
        .configure_view(stroke=None)
    )
    return chart


def to_svg(chart: Any) -> str:
    """An <svg> element to put into a page. Inline SVG needs no namespaces, so it is left without an address."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(chart.to_dict())
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
    def around(cls, points: Sequence[Point]) -> _Plane:
        costs = [point.cost for point in points]
        lo, hi = min(point.top1_ci[0] for point in points), max(point.top1_ci[1] for point in points)
        pad = max(0.12 * (hi - lo), 0.005)
        # costs from 0, so that a distance is a difference; accuracies as near as they allow
        return cls((0.0, 1.15 * max(costs)), (100 * (lo - pad), 100 * min(hi + pad, max(1.0, hi) + 0.005)))

    def at(self, cost: float, top1: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        return WIDTH * (cost - x0) / (x1 - x0), HEIGHT * (y1 - 100 * top1) / (y1 - y0)

    def cost(self, x_px: float) -> float:
        return self.x[0] + (self.x[1] - self.x[0]) * x_px / WIDTH

    def percent(self, y_px: float) -> float:
        return self.y[1] - (self.y[1] - self.y[0]) * y_px / HEIGHT


def _place(points: Sequence[Point], plane: _Plane, largest: int) -> list[tuple[float, float]]:
    """The centre of each label in pixels: as near to its bubble as leaves bubbles, bars and other labels free."""
    centres = [plane.at(point.cost, point.top1) for point in points]
    radii = [math.sqrt(LARGEST_PX2 * point.size_bytes / largest / math.pi) for point in points]
    bars: list[Box] = []
    for point, (x, _) in zip(points, centres, strict=True):
        lo, hi = (plane.at(point.cost, end)[1] for end in point.top1_ci)
        bars.append((x - 1, hi, x + 1, lo))
    taken = bars + [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    placed = []
    for point, (x, y), r, bar in zip(points, centres, radii, bars, strict=True):
        half = GLYPH_PX * len(point.label) / 2
        places = [
            (x + dx * (r + 5 + half), y + dy * (r + 4 + FONT_PX / 2) + step * FONT_PX)
            for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6)
            for dx, dy in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
        ]
        boxes = [(px - half, py - FONT_PX / 2 - 1, px + half, py + FONT_PX / 2 + 1) for px, py in places]
        costs = [
            sum(_overlap(box, other) for other in taken)
            + 10 * _outside(box)
            # a label that is nearer to another model would be read as that one's
            + 50 * any(_distance(box, other) < _distance(box, bar) for other in bars if other != bar)
            for box in boxes
        ]
        best = min(range(len(places)), key=costs.__getitem__)  # the first of equals: they are in order of liking
        taken.append(boxes[best])
        placed.append(places[best])
    return placed


def _distance(a: Box, b: Box) -> float:
    """Between the nearest edges; 0 where they touch."""
    return math.hypot(max(a[0] - b[2], b[0] - a[2], 0.0), max(a[1] - b[3], b[1] - a[3], 0.0))


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box) -> float:
    return sum(max(0.0, beyond) for beyond in itertools.chain((-box[0], -box[1], box[2] - WIDTH, box[3] - HEIGHT)))
