"""Every round of every model in one runtime, over what the machine's noise could have made of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from compress.report.charts import AXIS, FONT, INK, NAMES_PX, WIDTH, short
from compress.report.statistics import DISTURBED

ROW_PX = 26
COLOURS = {"undisturbed": "#4c86c6", "disturbed": "#d9a441"}


def latency_chart(bench: Mapping[str, Any]) -> alt.LayerChart | None:
    """A tick for each round; None where fewer than two models were measured in the reference's runtime."""
    reference, noise = bench.get("reference"), bench.get("noise")
    if not reference:
        return None
    shown = [row for row in bench["rows"] if row["runtime"] == reference["runtime"] and row.get("rounds_ms")]
    models = [short(row["model"]) for row in shown]
    if len(shown) < 2 or len(set(models)) < len(models):
        return None
    records = [
        {"model": short(row["model"]), "ms": ms, "round": "disturbed" if taken > DISTURBED else "undisturbed"}
        for row in shown
        for ms, taken in zip(row["rounds_ms"], row.get("taken") or [0.0] * len(row["rounds_ms"]), strict=False)
    ]
    colour = alt.Color(
        "round:N",
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=alt.Legend(title=None, orient="top", labelColor=INK),
    )
    scale = alt.Scale(domainMin=0, nice=True)
    x = alt.X("ms:Q", scale=scale, axis=alt.Axis(title="ms, the median of each round", tickCount=6))
    ticks = (
        alt.Chart({"values": records})
        .mark_tick(thickness=1.5, height=ROW_PX - 10, opacity=0.7)
        .encode(x=x, y=alt.Y("model:N", sort=models, axis=alt.Axis(title=None, labelLimit=NAMES_PX)), color=colour)
    )
    layers: list[alt.Chart] = [ticks]
    base = next((row["median_ms"] for row in shown if row["model"] == reference["model"]), None)
    if noise and base:
        floor = noise["floor_pct"] / 100
        band = alt.Chart({"values": [{"from": base * (1 - floor), "to": base * (1 + floor)}]})
        layers.insert(0, band.mark_rect(fill=INK, opacity=0.12).encode(x=alt.X("from:Q", scale=scale), x2="to:Q"))
    chart: alt.LayerChart = (
        alt.layer(*layers)
        .properties(width=WIDTH - NAMES_PX, height=ROW_PX * len(models), background="transparent", padding=6)
        .configure(font=FONT)
        .configure_axis(**AXIS, gridOpacity=0.12)
        .configure_view(stroke=None)
    )
    return chart
