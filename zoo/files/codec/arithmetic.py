"""Binary arithmetic decoding (Witten, Neal and Cleary 1987; carry-free as in Mahoney's lpaq), and its twin's contract.

An encoder and a decoder are both a `Coder`: the one is told each bit and its probability and writes, the other is told
the probability and answers with the bit. What is coded is therefore described once, for both.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.files.codec import ans
from zoo.files.codec.errors import CodedError

REGISTER = 48  # bits of the interval's ends; the probability takes 16 of them at each step
TOP = REGISTER - 8
FULL = (1 << REGISTER) - 1
ONE = 1 << 16  # probabilities are in 1..ONE - 1


class Coder(Protocol):
    def bit(self, one: int, bit: int = 0) -> int:
        """Code a bit whose probability of being 1 is one / 65536; the bit itself is returned (and given, to write)."""

    def plain(self, count: int, content: bytes = b"") -> bytes:
        """Code `count` bytes as they are."""

    def symbols(self, count: int, kinds: int, symbols: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        """Code many symbols of 0..kinds - 1 by their frequencies alone, fast (see ans.py)."""


class Decoder:
    """Reads what `compress.deployment.codec.encoder.Encoder` wrote.

    Args:
        content: the arithmetic code.
        bulk: what was written beside it: plain bytes, and symbols.

    Raises:
        CodedError: more is asked for than was written.
    """

    def __init__(self, content: bytes, bulk: bytes = b"") -> None:
        self._content, self._next = content, 0
        self._bulk, self._bulk_next = bulk, 0
        self._low, self._high, self._code = 0, FULL, 0
        for _ in range(REGISTER // 8):
            self._code = self._code << 8 | self._byte()

    def bit(self, one: int, bit: int = 0) -> int:
        middle = self._low + ((self._high - self._low) * one >> 16)
        if self._code <= middle:
            bit, self._high = 1, middle
        else:
            bit, self._low = 0, middle + 1
        while not (self._low ^ self._high) >> TOP:
            self._low = self._low << 8 & FULL
            self._high = self._high << 8 & FULL | 255
            self._code = self._code << 8 & FULL | self._byte()
        return bit

    def plain(self, count: int, content: bytes = b"") -> bytes:
        start, self._bulk_next = self._bulk_next, self._bulk_next + count
        if self._bulk_next > len(self._bulk):
            raise CodedError("the plain bytes end too early")
        return self._bulk[start : self._bulk_next]

    def symbols(self, count: int, kinds: int, symbols: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        frequencies = np.array([code_count(self, most=1 << ans.SCALE) for _ in range(kinds)], dtype=np.uint64)
        length = code_count(self, most=len(self._bulk))
        states = np.frombuffer(self.plain(4 * ans.lanes_for(count)), dtype="<u4")
        words = np.frombuffer(self.plain(2 * length), dtype="<u2")
        return ans.decode_symbols(states, words, frequencies, count)

    def _byte(self) -> int:
        """The next one; zeros behind the end, which the encoder leaves away, but no more than the register holds."""
        position, self._next = self._next, self._next + 1
        if position < len(self._content):
            return self._content[position]
        if position >= len(self._content) + REGISTER // 8:
            raise CodedError("the coded numbers end too early")
        return 0


def code_number(coder: Coder, bits: int, number: int = 0) -> int:
    """`bits` equally likely bits, highest first."""
    value = 0
    for place in range(bits - 1, -1, -1):
        value = value << 1 | coder.bit(ONE // 2, number >> place & 1)
    return value


def code_count(coder: Coder, number: int = 0, *, most: int) -> int:
    """A number from 0 on, small ones in few bits: Elias's gamma code (1975) of number + 1.

    Raises:
        CodedError: it is larger than `most`.
    """
    width = (number + 1).bit_length()
    length = 1
    while coder.bit(ONE // 2, int(length < width)):
        length += 1
        if length > 64:
            raise CodedError("a count is larger than any that is written")
    value = (1 << (length - 1) | code_number(coder, length - 1, number + 1)) - 1
    if value > most:
        raise CodedError(f"a count of {value} where at most {most} is possible")
    return value
