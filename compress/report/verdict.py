"""The first sentence of the report: what to do."""

from __future__ import annotations

from collections.abc import Sequence

from compress.report.figures import interval, megabytes, milliseconds, percent, quoted, signed, times
from compress.report.searched import Searched
from compress.report.statistics import TooBusy
from compress.report.variants import ONNXRUNTIME, Comparison, Variant


def verdict_of(
    baseline: Variant,
    chosen: Variant | None,
    pairs: Sequence[tuple[Variant, Comparison]],
    max_drop: float,
    searched: Searched | None = None,
) -> str:
    """What to do, in one sentence, or two where speed does not speak for it, or a search has chosen."""
    why = "" if searched is None else searched.why
    if chosen is None and why:
        return why
    if chosen is baseline:
        return f"Keep {quoted(baseline.name)}: it meets the budget as it is."
    if not pairs:
        return f"Keep {quoted(baseline.name)}: nothing was compressed yet."
    budget = f"{max_drop:.1f} {'point' if max_drop == 1 else 'points'}"
    drops = {variant.name: compared.points["val"] for variant, compared in pairs if "val" in compared.points}
    if not drops:
        return f"Keep {quoted(baseline.name)}: no compressed model was measured on validation."
    if chosen is None:
        nearest = min(drops, key=drops.__getitem__)
        return (
            f"Keep {quoted(baseline.name)}: no compressed model is within {budget} on validation "
            f"(the nearest, {quoted(nearest)}, loses {drops[nearest]:.1f})."
        )
    compared = next(c for variant, c in pairs if variant is chosen)
    elsewhere = searched is not None and searched.elsewhere is not None
    parts = [_accuracy_part(chosen, compared), _speed_part(chosen, compared, " on this machine" if elsewhere else "")]
    if chosen.size_bytes is not None:
        factor = compared.times_smaller
        smaller = "" if factor is None else f" ({times(factor)} smaller)" if factor > 1 else " (not smaller)"
        parts.append(megabytes(chosen.size_bytes) + smaller)
    sentence = f"Use {quoted(chosen.name)}: {', '.join(filter(None, parts))}."
    within = [c for variant, c in pairs if drops.get(variant.name, max_drop + 1) <= max_drop]
    if chosen.disturbed and searched is None:
        sentence += " It is the smallest of those within the budget: the machine was too busy to choose by time."
    elif compared.speed_verdict in ("slower", "tie") and not any(c.speed_verdict == "faster" for c in within):
        sentence += f" No compressed model within {budget} is faster than {quoted(baseline.name)} on this machine."
    return f"{sentence} {why}".rstrip()


def _accuracy_part(chosen: Variant, compared: Comparison) -> str:
    split = "test" if "test" in compared.points else "val"
    text = f"top-1 {percent(chosen.accuracy[split].top1)} on {'test' if split == 'test' else 'validation'}"
    if (paired := compared.paired.get(split)) is None:
        return f"{text} ({signed(-compared.points[split])} points)"
    lo, hi = paired.ci_points
    return f"{text} ({signed(-paired.points)} points, 95% interval {signed(-hi)} to {signed(-lo)}, paired)"


def _speed_part(chosen: Variant, compared: Comparison, where: str) -> str:
    if chosen.latency_ms is None:
        return ""
    text, found = milliseconds(chosen.latency_ms) + in_runtime(chosen) + where, compared.speed_up
    if found is None:
        return text
    if isinstance(found, TooBusy):
        return f"{text} (how much faster: {found})"
    how = {"faster": " faster", "slower": ", slower", "tie": ", a tie"}.get(compared.speed_verdict or "", " the speed")
    return f"{text} ({found.value:.2f}x{how}, {interval(found)})"


def in_runtime(variant: Variant) -> str:
    """In which runtime it is compared, where that is not the usual one."""
    return "" if variant.runtime == ONNXRUNTIME else f" in {variant.runtime}"
