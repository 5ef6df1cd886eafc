"""Many symbols at once: interleaved range asymmetric numeral systems (Duda 2013, arXiv 1311.2540; Giesen 2014).

The adaptive coder takes some microseconds of Python for each bit, which is too long for millions of weights. Here the
frequencies are fixed, and `lanes` independent coders take a step together, as arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.files.codec.errors import CodedError

SCALE = 14  # bits of a frequency
LOW = 1 << 16  # each lane's number is in LOW..LOW * 2^16 - 1 between steps
PER_LANE = 4096  # symbols; a lane costs 4 bytes

Frequencies = NDArray[np.uint64]  # (K,), of sum 2^SCALE


def lanes_for(count: int) -> int:
    return max(1, -(-count // PER_LANE))


def symbol_table(frequencies: Frequencies) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """(2^SCALE,) the symbol of each slot, and (K,) the first slot of each symbol.

    Raises:
        CodedError: the frequencies do not add up.
    """
    if int(frequencies.sum()) != 1 << SCALE:
        raise CodedError("frequencies that do not add up")
    slots = np.repeat(np.arange(len(frequencies)), frequencies.astype(np.intp))
    return slots, np.cumsum(frequencies) - frequencies


def decode_symbols(
    states: NDArray[np.uint32], words: NDArray[np.uint16], frequencies: Frequencies, count: int
) -> NDArray[np.intp]:
    """`count` symbols from the lanes' last numbers and the words that they gave off.

    Raises:
        CodedError: the words end too early.
    """
    slots, first = symbol_table(frequencies)
    x, lanes, at = states.astype(np.uint64), len(states), 0
    out = np.empty(count, dtype=np.intp)
    for start in range(0, count, lanes):
        n = min(lanes, count - start)
        slot = x[:n] & np.uint64((1 << SCALE) - 1)
        symbols = slots[slot.astype(np.intp)]
        out[start : start + n] = symbols
        x[:n] = frequencies[symbols] * (x[:n] >> np.uint64(SCALE)) + slot - first[symbols]
        short = np.flatnonzero(x[:n] < LOW)
        if at + len(short) > len(words):
            raise CodedError("the coded symbols end too early")
        x[short] = x[short] << np.uint64(16) | words[at : at + len(short)]
        at += len(short)
    return out
