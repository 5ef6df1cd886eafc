"""The same steps with other seeds: what of a figure is the recipe's, and what is luck."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from compress.report.figures import Cell, megabytes, percent, quoted, signed
from compress.report.parts import Table
from compress.report.statistics import Ratio, TooBusy
from compress.report.variants import Comparison, Variant, compare

PLACES = ("out", "directory", "data")  # that say where something lies, not what was done


def seeds_table(variants: Sequence[Variant], bench: dict[str, Any] | None, split: str) -> Table:
    """A row for each recipe of which there are models of several seeds: means, and the least and the most of them.

    Of one seed the first model counts. Changes and speed-ups are over the first model of each one's own steps.
    """
    rows = []
    for group in same_recipe(variants):
        models = list({_seeds(one): one for one in reversed(group)}.values())[::-1]
        compared = [compare(one, own, bench) for one in models if (own := first_of(one, variants)) is not None]
        sizes = [one.size_bytes for one in models if one.size_bytes is not None]
        rows.append(
            [
                Cell(", ".join(quoted(one.name) for one in models)),
                _over([one.accuracy[split].top1 for one in models if split in one.accuracy], percent),
                _over([-found.points[split] for found in compared if split in found.points], signed),
                _over(sizes, megabytes),
                _speed(compared),
            ]
        )
    return Table(["models", f"top-1, {split}", "change", "size", "speed-up"], rows)


def same_recipe(variants: Sequence[Variant]) -> list[list[Variant]]:
    """Models that were made by the same steps of the same images, together, where there are several seeds."""
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(_recipe(variant), []).append(variant)
    return [group for group in groups.values() if len({_seeds(one) for one in group}) > 1]


def made_of(baseline: Variant, pairs: Sequence[tuple[Variant, Comparison]]) -> list[tuple[Variant, Comparison]]:
    """Those that compare with the baseline: not itself with another seed, nor made of that."""
    variants = [baseline, *(variant for variant, _ in pairs)]
    again = [one for group in same_recipe(variants) if baseline in group for one in group]
    others = [one for one in again if _seeds(one) != _seeds(baseline)]
    return [pair for pair in pairs if pair[0] not in others and first_of(pair[0], variants) not in others]


def first_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The model of the fewest steps that the variant's steps begin with; None where that is itself, or not here."""
    before = [one for one in variants if 0 < len(one.steps) < len(variant.steps)]
    own = [one for one in before if variant.steps[: len(one.steps)] == one.steps]
    return min(own, key=lambda one: len(one.steps), default=None)


def _recipe(variant: Variant) -> str:
    """What was done, without where it was done and with which seed."""
    steps = []
    for record in variant.steps:
        given = record.get("arguments") or {}
        kept = {name: value for name, value in given.items() if name not in (*PLACES, "seed")}
        steps.append([record.get("verb"), kept, _images(record.get("data") or {})])
    return json.dumps(steps, sort_keys=True, default=str)


def _images(data: dict[str, Any]) -> tuple[str, int]:
    """Where they are from and how many: another seed may divide them otherwise, which is another fingerprint."""
    return str(data.get("name")), sum((data.get("sizes") or {}).values())


def _seeds(variant: Variant) -> tuple[Any, ...]:
    return tuple(record.get("seed") for record in variant.steps)


def _over(values: Sequence[float], said: Callable[[float], str]) -> Cell:
    """The mean, and between what it lies."""
    if not values:
        return Cell("")
    return Cell(said(statistics.fmean(values)), [f"{said(min(values))} to {said(max(values))}"])


def _speed(compared: Sequence[Comparison]) -> Cell:
    if any(isinstance(found.speed_up, TooBusy) for found in compared):
        return Cell("", ["too busy to say"])
    ratios = [found.speed_up.value for found in compared if isinstance(found.speed_up, Ratio)]
    if not ratios:
        return Cell("")
    return Cell(f"{statistics.geometric_mean(ratios):.2f}x", [f"{min(ratios):.2f} to {max(ratios):.2f}"])
