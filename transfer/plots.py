"""Pictures of a training run: curves and the confusion matrix, by Altair, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfer.finetune import Epoch


def save_curves(history: Sequence[Epoch], path: Path) -> None:
    """Training loss and validation accuracy over the epochs."""
    import altair as alt

    values = [{"epoch": line.epoch, "loss": line.train_loss, "top-1 (%)": _percent(line.val_top1)} for line in history]
    base = alt.Chart(alt.InlineData(values)).encode(x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)))
    loss = base.mark_line(point=True).encode(y=alt.Y("loss:Q", title="training loss"))
    panels = [loss.properties(width=320, height=220)]
    if any(line.val_top1 is not None for line in history):
        accuracy = base.mark_line(point=True, color="#d95f02").encode(
            y=alt.Y("top-1 (%):Q", title="validation top-1 (%)", scale=alt.Scale(zero=False))
        )
        panels.append(accuracy.properties(width=320, height=220))
    save_png(alt.hconcat(*panels), path)


def save_confusion(confusion: NDArray[np.int64], classes: Sequence[str], path: Path, *, title: str) -> None:
    """(K, K) counts, rows true classes; colour is the share of the row."""
    import altair as alt

    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    values = [
        {"true": classes[i], "predicted": classes[j], "share": float(shares[i, j]), "images": int(confusion[i, j])}
        for i in range(len(classes))
        for j in range(len(classes))
    ]
    side = max(240, min(900, 32 * len(classes)))
    order = list(classes)
    base = alt.Chart(alt.InlineData(values), title=title).encode(
        x=alt.X("predicted:N", sort=order, axis=alt.Axis(labelAngle=-45)), y=alt.Y("true:N", sort=order)
    )
    chart = base.mark_rect().encode(color=alt.Color("share:Q", scale=alt.Scale(scheme="blues"), title="share of row"))
    if len(classes) <= 20:
        ink = alt.condition("datum.share > 0.5", alt.value("white"), alt.value("black"))
        counts = base.transform_filter("datum.images > 0").mark_text(fontSize=10)
        chart = chart + counts.encode(text="images:Q", color=ink)
    save_png(chart.properties(width=side, height=side), path)


def save_png(chart: Any, path: Path) -> None:
    import vl_convert

    path.write_bytes(vl_convert.vegalite_to_png(chart.to_dict(), scale=1.5))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
