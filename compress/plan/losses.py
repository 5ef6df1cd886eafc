"""What a candidate loses: what validation says, how sure that is, and what follows from how far its answers moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from transfer.data.split import VAL
from transfer.evaluation.statistics import Z95, PairedDrop, paired_drop

# Lost on images of the same kind that were kept back, over nats: the mean of five tasks of 150 images and more, three
# divisions and three cuts of each (clipart 29, materials 26, digits 13, wallpapers 5, garments 3; by_nats in
# benchmarks/results/photographs.json).
POINTS_PER_NAT = 15.0
FEWEST_FLIPS = 0.02  # of the images, that are counted with where fewer answers changed

Metric = Literal["top1", "balanced"]


def drop_between(base: Mapping[str, Any], metrics: Mapping[str, Any], metric: Metric = "top1") -> PairedDrop | None:
    """On the validation images that both answered; None where they are not the same.

    Of the balanced accuracy, the mean of the classes' recalls, images count by what their class has of them: as a drop
    of as many images as would vary as much, if answers change as often in every class.
    """
    before, after = base.get(VAL) or {}, metrics.get(VAL) or {}
    answers = before.get("correct") or "", after.get("correct") or ""
    if not answers[0] or len(answers[0]) != len(answers[1]):
        return None
    found = paired_drop(*answers)
    if metric == "top1":
        return found
    if not before.get("by_class") or not after.get("by_class"):
        return None
    right, of = np.array(before["by_class"], dtype=float).T
    right_after = np.array(after["by_class"], dtype=float)[:, 0]
    seen = of > 0
    points = 100 * float(((right - right_after)[seen] / of[seen]).mean())
    images = float(seen.sum()) ** 2 / float((1 / of[seen]).sum())
    reach = (found.ci_points[1] - found.ci_points[0]) / 2 * math.sqrt(found.n / images)
    flips = max(math.ceil(found.flips * images / found.n), min(found.flips, 1))
    return PairedDrop(points, (points - reach, points + reach), found.mcnemar_p, max(1, math.floor(images)), flips)


def expected_loss(drop: PairedDrop, nats: float | None) -> float:
    """Points that are lost on new images: the mean of two normal estimates, weighted by how sure each is.

    One is what validation images say, whose variance is that of a paired difference, of one flip at least; the other
    follows from how far all answers moved, and is as unsure as it is large. Fourteen images on which nothing flipped do
    not outweigh answers that moved far; a thousand do.
    """
    if nats is None:
        return drop.points
    by_nats = POINTS_PER_NAT * nats
    variance = (100 / drop.n) ** 2 * max(drop.flips, 1)
    weight = by_nats**2 / (by_nats**2 + variance)
    return by_nats + weight * (drop.points - by_nats)


def nats_between(lineage: Sequence[Mapping[str, Any]], steps: int) -> float | None:
    """How far answers moved in the last steps, which each say how far in theirs; None where one does not."""
    found = 0.0
    for record in lineage[len(lineage) - steps :]:
        if record["verb"] == "prune" and record.get("diverged"):
            found += record["diverged"]["nats"]
        elif record["verb"] == "quantize" and record.get("divergence"):
            tried = record["divergence"]
            found += tried[record["taken"][-1]] if record.get("taken") else min(tried.values())
        else:
            return None
    return found


def recovered(lineage: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the training after the last cut brought something that was kept."""
    cut: Mapping[str, Any] = next((record for record in reversed(lineage) if record["verb"] == "prune"), {})
    return bool((cut.get("kept") or {"share": 1.0})["share"])


def images_needed(points: float, drop: PairedDrop) -> int:
    """How many validation images it takes until a loss of so many points is more than its 95% interval is wide.

    By the normal approximation of a paired difference, whose variance is the share of answers that changed, over n.
    """
    changed = max(drop.flips / drop.n, FEWEST_FLIPS)
    return math.ceil(changed * (100 * Z95 / points) ** 2) if points > 0 else 0
