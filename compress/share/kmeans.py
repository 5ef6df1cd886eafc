"""k-means of numbers: which few values stand for many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
BLOCK = 1 << 20  # distances held at a time
ROUNDS = 50


def linear_centroids(values: Values, count: int) -> Values:
    """`count` values evenly from the least to the largest (Han et al. 2016, sec. 3.2, their best of three).

    Large weights are few and matter most; values placed by density would forget them.
    """
    return np.linspace(values.min(), values.max(), count)


def nearest(values: Values, centroids: Values, price: Values | None = None) -> NDArray[np.intp]:
    """(N,) index of the centroid (ascending) that is nearest, or cheapest: squared distance + price."""
    if price is None:
        return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)
    found = np.empty(len(values), dtype=np.intp)
    block = max(1, BLOCK // len(centroids))
    for start in range(0, len(values), block):
        distance = (values[start : start + block, None] - centroids) ** 2
        found[start : start + block] = (distance + price).argmin(axis=1)
    return found


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
    centroids = np.unique(linear_centroids(values, count))
    codes, price = nearest(values, centroids), None
    for _ in range(ROUNDS):
        sizes = np.bincount(codes, minlength=len(centroids))
        sums = np.bincount(codes, weights=values, minlength=len(centroids))
        moved = sums[sizes > 0] / sizes[sizes > 0]
        if bit_price:
            price = -bit_price * np.log2(sizes[sizes > 0] / len(values))
        if len(moved) == len(centroids) and np.allclose(moved, centroids, rtol=1e-9, atol=0):
            break
        centroids = moved
        codes = nearest(values, centroids, price)
    used, codes = np.unique(codes, return_inverse=True)
    return centroids[used], codes
