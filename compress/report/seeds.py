"""The same steps with other seeds: what of a figure is the recipe's, and what is luck."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from compress.report.figures import Cell, megabytes, percent, quoted, signed
from compress.report.parts import Table
from compress.report.statistics import Ratio
from compress.report.variants import Comparison, Variant, compare
from zoo.lineage import SAME_WEIGHTS

PLACES = ("out", "directory", "data")  # that say where something lies, not what was done


def seeds_table(variants: Sequence[Variant], bench: dict[str, Any] | None, split: str) -> Table:
    """A row for each recipe of which there are models of several seeds: means, and the least and the most of them.

    Changes and speed-ups are over the model that each was made of, with its own seed, so far as it is here.
    """
    rows = []
    for group in same_recipe(variants):
        compared = [compare(one, own, bench) for one in group if (own := _own_first(one, variants)) is not None]
        sizes = [one.size_bytes for one in group if one.size_bytes is not None]
        rows.append(
            [
                Cell(", ".join(quoted(one.name) for one in group)),
                _over([one.accuracy[split].top1 for one in group if split in one.accuracy], percent),
                _over([-found.points[split] for found in compared if split in found.points], signed),
                _over(sizes, megabytes),
                _speed(compared),
            ]
        )
    return Table(["models", f"top-1, {split}", "change", "size", "speed-up"], rows)


def same_recipe(variants: Sequence[Variant]) -> list[list[Variant]]:
    """Models that were made by the same steps of the same images with different seeds, together."""
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(_recipe(variant), []).append(variant)
    return [group for group in groups.values() if len({_seeds(one) for one in group}) == len(group) > 1]


def other_seeds(baseline: Variant, variants: Sequence[Variant]) -> list[Variant]:
    """Those that are the baseline with another seed, and so nothing that was made of it."""
    groups = [group for group in same_recipe(variants) if baseline in group]
    return [one for group in groups for one in group if one is not baseline]


def _steps(variant: Variant) -> list[dict[str, Any]]:
    return [record for record in variant.lineage if record.get("verb") not in SAME_WEIGHTS]


def _recipe(variant: Variant) -> str:
    """What was done, without where it was done and with which seed."""
    steps = []
    for record in _steps(variant):
        given = record.get("arguments") or {}
        kept = {name: value for name, value in given.items() if name not in (*PLACES, "seed") and not _place(value)}
        steps.append([record.get("verb"), kept, _images(record.get("data") or {})])
    return json.dumps(steps, sort_keys=True, default=str)


def _images(data: dict[str, Any]) -> tuple[str, int]:
    """Where they are from and how many: another seed may divide them otherwise, which is another fingerprint."""
    return str(data.get("name")), sum((data.get("sizes") or {}).values())


def _place(value: Any) -> bool:
    return isinstance(value, str) and ("/" in value or "\\" in value)


def _seeds(variant: Variant) -> tuple[Any, ...]:
    return tuple(record.get("seed") for record in _steps(variant))


def _own_first(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The model of the fewest steps that the variant's steps begin with; None where that is itself, or not here."""
    steps = _steps(variant)
    before = [one for one in variants if one is not variant and (of := _steps(one)) and steps[: len(of)] == of]
    return min(before, key=lambda one: len(_steps(one)), default=None)


def _over(values: Sequence[float], said: Callable[[float], str]) -> Cell:
    """The mean, and between what it lies."""
    if not values:
        return Cell("")
    return Cell(said(statistics.fmean(values)), [f"{said(min(values))} to {said(max(values))}"])


def _speed(compared: Sequence[Comparison]) -> Cell:
    ratios = [found.speed_up.value for found in compared if isinstance(found.speed_up, Ratio)]
    if not ratios or len(ratios) < len(compared):
        return Cell("", ["too busy to say"] if ratios else [])
    return Cell(f"{statistics.geometric_mean(ratios):.2f}x", [f"{min(ratios):.2f} to {max(ratios):.2f}"])
