"""Pictures of what an evaluation found, by Altair, as PNG: the confusion matrix, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.data.contact_sheet import printable
from transfer.evaluation.calibration import Bin
from transfer.evaluation.statistics import wilson

BLUE, ORANGE, GREY = "#3b75af", "#d95f02", "#8a8f98"
MOST_CLASSES = 100  # that a confusion matrix shows
LONGEST = 28  # letters of a class name


def save_confusion(confusion: NDArray[np.int64], classes: Sequence[str], path: Path, *, title: str) -> None:
    """(K, K) counts, rows true classes. Colour is the share of the row; up to 20 classes, the counts are written too.

    Of more than 100 classes, the 100 with the most mistakes, of either kind, are shown.
    """
    import altair as alt

    wrong = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * confusion.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
    if len(shown) < len(classes):
        title = f"{title}: the {MOST_CLASSES} of {len(classes)} classes with the most mistakes"
    names = short_names(classes)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    values = [
        {"true": names[i], "predicted": names[j], "share": 100 * float(shares[i, j]), "images": int(confusion[i, j])}
        for i in shown
        for j in shown
        if confusion[i, j]
    ]
    order = [names[i] for i in shown]
    few = len(order) <= 20
    cell = 36 if few else max(9, 720 // len(order))
    side = max(160, cell * len(order))
    size = 12 if few else min(11, cell - 1)
    axis: dict[str, Any] = {"labelFontSize": size, "labelLimit": 220, "labelOverlap": False, "ticks": few, "zindex": 0}
    base = alt.Chart(
        alt.InlineData(values), title=alt.Title(title, subtitle=_subtitle(confusion), anchor="start", frame="group")
    ).encode(
        x=alt.X(
            "predicted:N",
            title="predicted class",
            scale=alt.Scale(domain=order),
            axis=alt.Axis(labelAngle=-45 if few else -90, grid=not few, **axis),
        ),
        y=alt.Y("true:N", title="true class", scale=alt.Scale(domain=order), axis=alt.Axis(grid=not few, **axis)),
    )
    colour = alt.Color(
        "share:Q",
        scale=alt.Scale(domain=[0, 100], range=["#dfeaf5", "#08519c"]),
        title=["% of the", "true class"],
        legend=alt.Legend(gradientLength=min(160, side)),
    )
    chart = base.mark_rect().encode(color=colour)
    if few:
        ink = alt.condition("datum.share > 55", alt.value("white"), alt.value("#1b1f24"))
        chart = chart + base.mark_text(fontSize=11).encode(text="images:Q", color=ink)
    save_png(chart.properties(width=side, height=side), path)


def save_reliability(bins: Sequence[Bin], path: Path, *, title: str) -> None:
    """The reliability diagram: accuracy over confidence with 95% intervals, and below it how many images there are.

    Args:
        bins: see `transfer.evaluation.calibration.reliability`.
    """
    import altair as alt

    count = sum(line.n for line in bins)
    error = sum(abs(line.correct - line.n * line.confidence) for line in bins) / count
    values = [
        {
            "low": 100 * line.low,
            "high": 100 * line.high,
            "confidence": 100 * line.confidence,
            "images": line.n,
            "accuracy": 100 * line.correct / line.n,
            "ci_low": 100 * wilson(line.correct, line.n)[0],
            "ci_high": 100 * wilson(line.correct, line.n)[1],
        }
        for line in bins
        if line.n
    ]
    across = alt.Scale(domain=[0, 100], nice=False)
    side = 320
    base = alt.Chart(alt.InlineData(values))
    x = alt.X("low:Q", scale=across, title=None, axis=alt.Axis(labels=False))
    bars = base.mark_bar(color=BLUE, opacity=0.75, stroke="white").encode(
        x=x, x2="high:Q", y=alt.Y("accuracy:Q", scale=across, title="accuracy (%)"), y2=alt.datum(0)
    )
    whiskers = base.mark_rule(color="#1b1f24").encode(
        x=alt.X("confidence:Q", scale=across), y=alt.Y("ci_low:Q", scale=across), y2="ci_high:Q"
    )
    diagonal = alt.Chart(alt.InlineData([{"x": 0, "y": 0}, {"x": 100, "y": 100}])).mark_line(
        color=ORANGE, strokeDash=[5, 4]
    )
    diagonal = diagonal.encode(x=alt.X("x:Q", scale=across), y=alt.Y("y:Q", scale=across))
    below = base.mark_bar(color=GREY, stroke="white").encode(
        x=alt.X("low:Q", scale=across, title="confidence (%), the probability of the answer"),
        x2="high:Q",
        y=alt.Y("images:Q", title="images", axis=alt.Axis(tickCount=3, tickMinStep=1, format="d")),
        y2=alt.datum(0),
    )
    upper = (bars + diagonal + whiskers).properties(width=side, height=side)
    explained = [
        f"Expected calibration error {error:.1%}, {count:,} images",
        "Dashed: as sure as right. Bars below it: too sure of itself. Lines: 95% intervals.",
    ]
    save_png(
        alt.vconcat(upper, below.properties(width=side, height=70), spacing=6).properties(
            title=alt.Title(title, subtitle=explained, anchor="start")
        ),
        path,
    )


def save_png(chart: Any, path: Path) -> None:
    import vl_convert

    styled = chart.configure_view(stroke="#d5d8dc").configure_axis(
        titleFontWeight="normal", gridColor="#eceef0", labelFontSize=11, titleFontSize=12
    )
    styled = styled.configure_title(fontSize=14, subtitleFontSize=11, subtitleColor="#555b63", offset=12)
    spec = styled.to_dict() | {"background": "white", "padding": 12}
    path.write_bytes(vl_convert.vegalite_to_png(spec, scale=1.5))


def short_names(classes: Sequence[str]) -> list[str]:
    """The names as they can be printed, long ones cut in the middle and numbered where that made two of them equal."""
    half = LONGEST // 2
    said = [printable(name) for name in classes]
    cut = [name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}" for name in said]
    return [f"{name} ({i})" if cut.count(name) > 1 else name for i, name in enumerate(cut)]


def _subtitle(confusion: NDArray[np.int64]) -> str:
    right, count = int(confusion.trace()), int(confusion.sum())
    return f"{right:,} of {count:,} images right ({right / max(count, 1):.1%})"
