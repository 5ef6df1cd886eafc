"""From photo to answer as stacked bars: what decoding, preparing and the network take, of each photo and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from compress.report.charts import AXIS, FONT, INK, NAMES_PX, WIDTH, short

BAR_PX = 18
COLOURS = {"decoding": "#8a8f98", "preparing": "#d9a441", "network": "#4c86c6"}
PARTS = {"decoding": "decode_ms", "preparing": "prepare_ms", "network": "network_ms"}


def answer_chart(rows: Sequence[dict[str, Any]]) -> alt.FacetChart | None:
    """A row of bars for each photo, in milliseconds of its own scale; None where no photo was measured.

    Args:
        rows: of a benchmark, those with `answers`.
    """
    records = [
        {"model": short(row["model"]), "photo": photo, "part": part, "order": order, "ms": found[key]}
        for row in rows
        for photo, found in (row.get("answers") or {}).items()
        for order, (part, key) in enumerate(PARTS.items())
    ]
    if not records:
        return None
    photos = list(dict.fromkeys(record["photo"] for record in records))
    models = list(dict.fromkeys(record["model"] for record in records))
    bars = (
        alt.Chart()
        .mark_bar(height=BAR_PX - 6)
        .encode(
            x=alt.X("ms:Q", stack="zero", axis=alt.Axis(title=None, tickCount=5, labelExpr="datum.label + ' ms'")),
            y=alt.Y("model:N", sort=models, axis=alt.Axis(title=None, labelLimit=NAMES_PX)),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
                legend=alt.Legend(title=None, orient="top", labelColor=INK),
            ),
            order=alt.Order("order:Q"),
        )
        .properties(width=WIDTH - NAMES_PX, height=BAR_PX * len(models))
    )
    chart: alt.FacetChart = (
        bars.facet(
            row=alt.Row("photo:N", sort=photos, title=None, header=alt.Header(labelAngle=0, labelOrient="top")),
            data={"values": records},
            spacing=14,
        )
        .resolve_scale(x="independent")
        .properties(background="transparent", padding=6)
        .configure(font=FONT)
        .configure_axis(**AXIS, gridOpacity=0.12)
        .configure_header(
            labelColor=INK, labelFontSize=12, labelAnchor="start", labelFontWeight="normal", labelPadding=2
        )
        .configure_view(stroke=None)
    )
    return chart
