"""CPU against GPU: from which batch size on the GPU is faster, and what a million images cost on either."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Device = Literal["cpu", "gpu"]
MILLION, HOUR_S = 1e6, 3600


def crossovers(
    rows: Sequence[Mapping[str, Any]], *, price_cpu: float | None = None, price_gpu: float | None = None
) -> list[dict[str, Any]]:
    """Of each model that was measured on both, which device to take for which batch.

    Args:
        rows: of a benchmark.
        price_cpu, price_gpu: of an hour of the machine without, and of that with its GPU, in any one currency.

    Returns:
        For each model: `model`; `batches`, of each batch size `batch`, and for `cpu` and `gpu` the fastest row's
        `runtime`, `precision`, `median_ms`, `images_per_s`, `million` (the price of a million images); `from_batch`,
        the batch size from which on the GPU is faster, interpolated between those measured (images a second against
        the batch, both as logarithms), None where it never is; `verdict`, in words.
    """
    prices: dict[Device, float | None] = {"cpu": price_cpu, "gpu": price_gpu}
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        fastest: dict[int, dict[Device, dict[str, Any]]] = {}
        for row in rows:
            if row["model"] != model or row["images_per_s"] is None:
                continue
            device: Device = "cpu" if row["device"] == "cpu" else "gpu"
            best = fastest.setdefault(row["batch"], {}).get(device)
            if best is None or row["images_per_s"] > best["images_per_s"]:
                fastest[row["batch"]][device] = _side(row, prices[device])
        both = [{"batch": batch, **sides} for batch, sides in sorted(fastest.items()) if len(sides) == 2]
        if both:
            from_batch = _from(both)
            found.append(
                {"model": model, "batches": both, "from_batch": from_batch, "verdict": _words(both, from_batch)}
            )
    return found


def _side(row: Mapping[str, Any], price: float | None) -> dict[str, Any]:
    kept = {name: row[name] for name in ("runtime", "precision", "median_ms", "images_per_s")}
    return kept | {"million": None if price is None else MILLION / row["images_per_s"] / HOUR_S * price}


def _from(both: Sequence[Mapping[str, Any]]) -> float | None:
    """The least batch from which on the GPU stays ahead; between two measured ones, where their lines cross."""
    leads = [math.log(one["gpu"]["images_per_s"] / one["cpu"]["images_per_s"]) for one in both]
    behind = [number for number, lead in enumerate(leads) if lead <= 0]
    if not behind:
        return float(both[0]["batch"])
    last = behind[-1]
    if last == len(both) - 1:
        return None
    below, above = math.log(both[last]["batch"]), math.log(both[last + 1]["batch"])
    share = -leads[last] / (leads[last + 1] - leads[last])
    return math.exp(below + share * (above - below))


def _words(both: Sequence[Mapping[str, Any]], from_batch: float | None) -> str:
    cpu, gpu = both[0]["cpu"], both[-1]["gpu"]
    on_cpu, on_gpu = (f"{side['runtime']} in {side['precision']}" for side in (cpu, gpu))
    if from_batch is None:
        return f"use the CPU ({on_cpu}): up to batch {both[-1]['batch']} the GPU is not faster"
    if from_batch <= both[0]["batch"]:
        return f"use the GPU ({on_gpu}): it is faster from batch {both[0]['batch']} on"
    return f"below batch {math.ceil(from_batch)} use the CPU ({on_cpu}), from there the GPU ({on_gpu})"
