"""Binary arithmetic encoding: the twin of `zoo.coded.arithmetic.Decoder`."""

from __future__ import annotations

from zoo.coded.arithmetic import FULL, REGISTER, TOP


class Encoder:
    """Collects bits with their probabilities; a `zoo.coded.arithmetic.Coder`."""

    def __init__(self) -> None:
        self._low, self._high = 0, FULL
        self._written = bytearray()

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

    def finish(self) -> bytes:
        """All bytes: the last ones name the shortest number in the interval, and its zeros are left away."""
        for count in range(REGISTER // 8 + 1):
            step = 1 << (REGISTER - 8 * count)
            number = -(-self._low // step) * step
            if number <= self._high:
                tail = number.to_bytes(REGISTER // 8, "big")[:count]
                return bytes(self._written + tail)
        raise AssertionError("an interval holds one of its own ends")
