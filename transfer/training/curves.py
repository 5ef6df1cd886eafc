"""Pictures of a training run, by Altair, as PNG: loss, accuracy and learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer.evaluation.plots import BLUE, GREY, ORANGE, save_png
from transfer.training.finetune import Epoch

PANEL = (300, 220)  # width and height of a curve, in points


def save_curves(history: Sequence[Epoch], path: Path, *, title: str = "") -> None:
    """Over the epochs: training loss, validation accuracy with its best epoch, and learning rate, as far as known."""
    import altair as alt

    panels = [
        _curve(history, "train_loss", "training loss", BLUE),
        _curve(history, "val_top1", "validation top-1 (%)", ORANGE, scale=100, mark_best=True),
        _curve(history, "lr", "highest learning rate", GREY),
    ]
    chart = alt.hconcat(*[panel for panel in panels if panel is not None], spacing=28)
    save_png(chart.properties(title=title) if title else chart, path)


def _curve(
    history: Sequence[Epoch], field: str, title: str, colour: str, *, scale: float = 1.0, mark_best: bool = False
) -> Any:
    """One panel, or None where no epoch has the figure."""
    import altair as alt

    found = [(line.epoch, getattr(line, field, None)) for line in history]
    values = [{"epoch": epoch, "value": scale * value} for epoch, value in found if value is not None]
    if not values:
        return None
    base = alt.Chart(alt.InlineData(values)).encode(
        x=alt.X(
            "epoch:Q",
            axis=alt.Axis(tickMinStep=1, format="d", labelFlush=False),
            scale=alt.Scale(nice=False, zero=False, padding=6),
        ),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
    )
    point = alt.OverlayMarkDef(color=colour) if len(values) <= 30 else False
    chart: Any = base.mark_line(point=point, color=colour)
    if mark_best:
        best = max(values, key=lambda value: value["value"])
        ring = alt.Chart(alt.InlineData([best])).mark_point(size=110, color=colour).encode(x="epoch:Q", y="value:Q")
        said = alt.Title(
            f"best {best['value']:.1f}% after epoch {best['epoch']}", fontSize=11, fontWeight="normal", color=colour
        )
        chart = (chart + ring).properties(title=said)
    return chart.properties(width=PANEL[0], height=PANEL[1])
