"""What pruning left of each layer, as a strip for each model: where it was cut deep, and where it was let be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import altair as alt

from compress.report.charts import AXIS, FONT, INK, NAMES_PX, WIDTH, short
from compress.report.variants import Variant
from zoo.files.model_directory import SAFETENSORS

STRIP_PX, MOST_PX = 26, 14
COLOURS = ("#ecd9bd", "#2c6aa5")  # of nothing, of all


def layer_chart(variants: Sequence[Variant]) -> alt.Chart | None:
    """The share of each layer's outputs that is left, layers in the order of their names; None where none was cut.

    Of blocks that were left out, nothing is.

    Args:
        variants: the baseline first.
    """
    base, *others = (_outputs(variant) for variant in variants)
    records: list[dict[str, Any]] = []
    names: list[str] = []
    for variant, outputs in zip(variants[1:], others, strict=True):
        gone = _left_out(variant) if outputs else ()
        both = sorted((name for name in base if name in outputs or name.startswith(gone)), key=_natural)
        shares = [outputs.get(name, 0) / base[name] for name in both]
        if not any(share < 1 for share in shares):
            continue
        name = short(variant.name)
        names.append(name)
        records += [
            {"model": name, "from": number, "to": number + 1, "left": share, "said": f"{layer}: {share:.0%} left"}
            for number, (layer, share) in enumerate(zip(both, shares, strict=True))
        ]
    if not records:
        return None
    layers = max(record["to"] for record in records)
    chart: alt.Chart = (
        alt.Chart({"values": records})
        .mark_rect(height=MOST_PX)
        .encode(
            x=alt.X(
                "from:Q", scale=alt.Scale(domain=[0, layers], nice=False), axis=alt.Axis(title="layer", grid=False)
            ),
            x2="to:Q",
            y=alt.Y("model:N", sort=names, axis=alt.Axis(title=None, labelLimit=NAMES_PX)),
            color=alt.Color(
                "left:Q",
                scale=alt.Scale(domain=[0, 1], range=list(COLOURS), interpolate="rgb"),
                legend=alt.Legend(title=None, orient="top", format="%", labelColor=INK, gradientLength=160),
            ),
            description="said:N",
        )
        .properties(width=WIDTH - NAMES_PX, height=STRIP_PX * len(names), background="transparent", padding=6)
        .configure(font=FONT)
        .configure_axis(**AXIS)
        .configure_view(stroke=None)
    )
    return chart


def _outputs(variant: Variant) -> dict[str, int]:
    """How many outputs each layer has, by the shapes in the model's file; empty where it has none."""
    from safetensors import SafetensorError, safe_open

    file = variant.directory / SAFETENSORS
    try:
        with safe_open(file, framework="numpy") as tensors:
            shapes: dict[str, Any] = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
    except (OSError, SafetensorError):
        return {}
    return {name.removesuffix(".weight"): shape[0] for name, shape in shapes.items() if len(shape) > 1}


def _left_out(variant: Variant) -> tuple[str, ...]:
    """How the names of layers begin that are in no block of the model any more."""
    records = [record["blocks"]["left_out"] for record in variant.lineage if record.get("blocks")]
    return tuple(f"{name}." for names in records for name in names)


def _natural(name: str) -> list[tuple[int, str]]:
    """By which blocks.10 comes after blocks.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]
