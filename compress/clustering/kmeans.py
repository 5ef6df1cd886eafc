"""k-means of numbers: which few values stand for many."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
ROUNDS = 50


def linear_centroids(values: Values, count: int) -> Values:
    """`count` values evenly from the least to the largest (Han et al. 2016, sec. 3.2, their best of three).

    Large weights are few and matter most; values placed by density would forget them.
    """
    return np.linspace(values.min(), values.max(), count)


def nearest(values: Values, centroids: Values, price: Values | None = None) -> NDArray[np.intp]:
    """(N,) index of the centroid (ascending) that is nearest, or cheapest: squared distance + price."""
    kept, bounds = territories(centroids, price)
    return kept[np.searchsorted(bounds, values)]


def territories(centroids: Values, price: Values | None = None) -> tuple[NDArray[np.intp], Values]:
    """The centroids (ascending) that are cheapest somewhere, and where one's territory ends.

    A value x takes the k-th of them if bounds[k - 1] < x <= bounds[k]. Squared distance + price is a parabola of x; all
    have the same curvature, so two of them meet once, and the cheapest are found from left to right.

    Returns:
        (M,) indices and (M - 1,) bounds, M <= len(centroids).
    """
    if price is None:
        return np.arange(len(centroids)), (centroids[1:] + centroids[:-1]) / 2
    kept: list[int] = []
    bounds: list[float] = []
    for new, (centroid, cost) in enumerate(zip(centroids.tolist(), price.tolist(), strict=True)):
        while kept:
            last = kept[-1]
            rise = float(centroid**2 + cost - centroids[last] ** 2 - price[last])
            width = 2 * float(centroid - centroids[last])
            bound = rise / width if width else math.copysign(math.inf, rise)
            if not bounds or bound > bounds[-1]:
                bounds.append(bound)
                break
            kept.pop()
            bounds.pop()
        kept.append(new)
    return np.array(kept, dtype=np.intp), np.array(bounds)


def kmeans(values: Values, count: int, *, bit_price: float = 0.0) -> tuple[Values, NDArray[np.intp]]:
    """Lloyd's algorithm from `linear_centroids`: (centroids ascending, the centroid of each value).

    Centroids that lose all their values are dropped, so there may be fewer than `count`.

    Args:
        values: (N,), at least one.
        bit_price: squared distance that one bit is worth. Above 0, a value joins the centroid of least squared distance
            + price x -log2(share of the values): entropy-constrained quantization (Chou, Lookabaugh and Gray 1989; for
            networks, Choi, El-Khamy and Lee 2017, https://arxiv.org/abs/1612.01543).
    """
    if count < 1 or not len(values):
        raise ValueError(f"{count} centroids of {len(values)} values: wanted at least one of each")
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.unique(linear_centroids(values, count))
    price: Values | None = None
    for _ in range(ROUNDS):
        # of ordered values, those of one centroid lie together: a round looks at the ends alone
        kept, bounds = territories(centroids, price)
        ends = np.concatenate([[0], np.searchsorted(ordered, bounds, side="right"), [len(ordered)]])
        sizes, totals = np.diff(ends), np.diff(sums[ends])
        moved = totals[sizes > 0] / sizes[sizes > 0]
        if len(moved) == len(centroids) and np.allclose(moved, centroids, rtol=1e-9, atol=0):
            break
        centroids = moved
        price = -bit_price * np.log2(sizes[sizes > 0] / len(values)) if bit_price else None
    kept, codes = np.unique(nearest(values, centroids, price), return_inverse=True)
    return centroids[kept], codes
