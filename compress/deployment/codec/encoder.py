"""Binary arithmetic encoding: the twin of `zoo.files.codec.arithmetic.Decoder`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compress.deployment.codec.ans import encode_symbols, frequencies_of
from zoo.files.codec.ans import SCALE
from zoo.files.codec.arithmetic import FULL, REGISTER, TOP, code_count


class Encoder:
    """Collects bits with their probabilities; a `zoo.files.codec.arithmetic.Coder`.

    Attributes:
        bulk: what is written beside the arithmetic code.
    """

    def __init__(self) -> None:
        self._low, self._high = 0, FULL
        self._written = bytearray()
        self.bulk = bytearray()

    def bit(self, one: int, bit: int = 0) -> int:
        middle = self._low + ((self._high - self._low) * one >> 16)
        if bit:
            self._high = middle
        else:
            self._low = middle + 1
        while not (self._low ^ self._high) >> TOP:
            self._written.append(self._high >> TOP)
            self._low = self._low << 8 & FULL
            self._high = self._high << 8 & FULL | 255
        return bit

    def plain(self, count: int, content: bytes = b"") -> bytes:
        assert len(content) == count
        self.bulk += content
        return content

    def symbols(self, count: int, kinds: int, symbols: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        assert symbols is not None
        assert len(symbols) == count
        frequencies = frequencies_of(symbols, kinds)
        states, words = encode_symbols(symbols, frequencies)
        for frequency in frequencies.tolist():
            code_count(self, frequency, most=1 << SCALE)
        code_count(self, len(words), most=len(words))
        self.bulk += states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
        return symbols

    def finish(self) -> bytes:
        """The arithmetic code: the last bytes name the shortest number in the interval, and its zeros are left away."""
        for count in range(REGISTER // 8 + 1):
            step = 1 << (REGISTER - 8 * count)
            number = -(-self._low // step) * step
            if number <= self._high:
                tail = number.to_bytes(REGISTER // 8, "big")[:count]
                return bytes(self._written + tail)
        raise AssertionError("an interval holds one of its own ends")
