"""The probability of a bit from several contexts, mixed in the logistic domain (Mahoney 2005, PAQ6 to PAQ8).

Each context remembers how often its bits were 1. Their opinions ln(p / (1 - p)) are added with weights that follow the
gradient of the coding cost. All of it is integer arithmetic, and the tables are computed by it too.
"""

from __future__ import annotations

from zoo.files.codec.arithmetic import ONE, Coder

UNIT = 256  # of the logistic domain: 256 is one nat
LIMIT = 11 * UNIT - 1  # ln((1 - p) / p) of the least probability, about 1 / 60,000
FRACTION = 22  # bits of a context's probability
MOST_SEEN = 254  # observations, after which a context forgets slowly
WEIGHT = 16  # fraction bits of a mixing weight


def _exponential(numerator: int) -> int:
    """exp(-numerator / UNIT) in units of 2^-64, by its series; numerator at least 0."""
    whole, rest = divmod(numerator, UNIT)
    series, term, k = 1 << 64, 1 << 64, 0
    while term:
        k += 1
        term = term * rest // (UNIT * k)
        series += term  # exp(rest / UNIT)
    e, term, k = 1 << 64, 1 << 64, 0
    while term:
        k += 1
        term //= k
        e += term
    result = (1 << 128) // series
    for _ in range(whole):
        result = (result << 64) // e
    return result


def _squash_table() -> list[int]:
    """Index x + LIMIT -> ONE / (1 + exp(-x / UNIT)), kept inside 1..ONE - 1."""
    upper = [(ONE << 64) // ((1 << 64) + _exponential(x)) for x in range(LIMIT + 1)]
    return [max(1, ONE - p) for p in upper[:0:-1]] + [min(ONE - 1, p) for p in upper]


def _stretch_table() -> list[int]:
    """Index p >> 4 (of 16 bits) -> the x at which squash first reaches the middle of that cell."""
    table, x = [], 0
    for cell in range(ONE >> 4):
        while x < 2 * LIMIT and SQUASH[x] < (cell << 4) + 8:
            x += 1
        table.append(x - LIMIT)
    return table


SQUASH = _squash_table()
STRETCH = _stretch_table()
RATE = [(ONE * 2) // (2 * n + 3) for n in range(MOST_SEEN + 1)]  # 1 / (n + 1.5): Krichevsky and Trofimov 1981
TRUST = [UNIT * 4 * n // (4 * n + 3) for n in range(MOST_SEEN + 1)]  # of an opinion formed on n observations


class Mixer:
    """Codes bits, each in some contexts, and learns from them.

    Args:
        inputs: how many contexts each bit has.
        rate: of the weights; larger learns faster and less exactly.
    """

    def __init__(self, inputs: int, *, rate: int = 4) -> None:
        self._inputs, self._rate = inputs, rate
        self._tables: list[dict[int, list[int]]] = [{} for _ in range(inputs)]  # context -> [probability, seen]
        self._weights: dict[int, list[int]] = {}  # selected set -> one weight a context

    def bit(self, coder: Coder, contexts: tuple[int, ...], chosen: int, bit: int = 0) -> int:
        """Code one bit.

        Args:
            contexts: one number for each input; equal numbers share what they have learned.
            chosen: which set of weights mixes them.
        """
        weights = self._weights.get(chosen)
        if weights is None:
            weights = self._weights[chosen] = [(1 << WEIGHT) // self._inputs] * self._inputs
        slots, opinions, total = [], [], 0
        for table, context, weight in zip(self._tables, contexts, weights, strict=True):
            slot = table.get(context)
            if slot is None:
                slot = table[context] = [1 << (FRACTION - 1), 0]
            opinion = STRETCH[slot[0] >> (FRACTION - 12)] * TRUST[slot[1]] >> 8
            slots.append(slot)
            opinions.append(opinion)
            total += opinion * weight
        mixed = total >> WEIGHT
        one = SQUASH[min(2 * LIMIT, max(0, mixed + LIMIT))]
        bit = coder.bit(one, bit)
        error = (bit << 16) - one
        target = bit << FRACTION
        for i, slot in enumerate(slots):
            weights[i] += opinions[i] * error * self._rate >> 18
            seen = slot[1]
            slot[0] += (target - slot[0]) * RATE[seen] >> 16
            if seen < MOST_SEEN:
                slot[1] = seen + 1
        return bit
