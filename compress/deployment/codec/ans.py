"""Encoding many symbols at once: the twin of zoo/files/codec/ans.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.files.codec.ans import LOW, SCALE, Frequencies, lanes_for, symbol_table


def frequencies_of(symbols: NDArray[np.intp], kinds: int) -> Frequencies:
    """How often each of `kinds` symbols comes, scaled to the sum 2^SCALE, at least 1 where it comes at all."""
    counts = np.bincount(symbols, minlength=kinds)
    scaled = counts * (1 << SCALE) // max(1, int(counts.sum()))
    scaled = np.where(counts > 0, np.maximum(scaled, 1), 0)
    spare = (1 << SCALE) - int(scaled.sum())
    while spare < 0:  # rare symbols were raised to 1: the frequent ones pay
        largest = int(scaled.argmax())
        paid = min(-spare, int(scaled[largest]) // 2)
        scaled[largest] -= paid
        spare += paid
    scaled[int(scaled.argmax())] += spare
    return scaled.astype(np.uint64)


def encode_symbols(
    symbols: NDArray[np.intp], frequencies: Frequencies
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """The lanes' last numbers, and the words that they give off, in the order in which the decoder takes them."""
    _, first = symbol_table(frequencies)
    lanes = lanes_for(len(symbols))
    x, words = np.full(lanes, LOW, dtype=np.uint64), []
    for start in reversed(range(0, len(symbols), lanes)):
        now = symbols[start : start + lanes]
        n, frequency = len(now), frequencies[now]
        full = np.flatnonzero(x[:n] >= frequency << np.uint64(32 - SCALE))
        words.append((x[full] & np.uint64(LOW - 1)).astype(np.uint16))
        x[full] >>= np.uint64(16)
        x[:n] = (x[:n] // frequency << np.uint64(SCALE)) + x[:n] % frequency + first[now]
    joined = np.concatenate([*reversed(words)]) if words else np.zeros(0, np.uint16)
    return x.astype(np.uint32), joined
