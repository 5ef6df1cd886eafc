"""Which classes a compression has changed: a mean hides the one that is lost."""

from __future__ import annotations

from compress.report.figures import Cell, quoted, signed
from compress.report.parts import Table
from compress.report.variants import Variant

MOST = 8  # classes, of those that lost most


def class_table(baseline: Variant, other: Variant | None, split: str) -> Table:
    """The classes with other counts in the other model: the worst first."""
    head = ["class", "images", baseline.name, "", "change"]
    before, after = (None if one is None else one.accuracy.get(split) for one in (baseline, other))
    if other is None or before is None or after is None or not before.by_class or not after.by_class:
        return Table(head, [])
    rows = []
    pairs = zip(before.by_class, after.by_class, strict=False)
    changes = [
        (100 * (new - old) / n, number, old, new, n)
        for number, ((old, n), (new, still)) in enumerate(pairs)
        if n and n == still and old != new
    ]
    for points, number, old, new, n in sorted(changes)[:MOST]:
        name = other.classes[number] if number < len(other.classes) else str(number)
        rows.append(
            [Cell(quoted(name)), Cell(str(n)), Cell(str(old)), Cell(str(new)), Cell(f"{signed(points)} points")]
        )
    return Table([*head[:3], other.name, head[4]], rows)
