"""How a tensor is coded: which values it has, where it is not zero, and which value stands there.

One description for both directions: `values` is None while decoding. A tensor is a matrix of bit patterns, (rows, rest)
as its first dimension says; a pattern of all zeros is a zero, everything else (also -0.0) lives.

Few different values are a codebook: sorted, and stored in the bits that they differ in. More than `MOST_SHARED` are
written out as they are, for the places that live.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zoo.files.codec.arithmetic import Coder, code_count, code_number
from zoo.files.codec.errors import CodedError
from zoo.files.codec.mixing import Mixer

Words = NDArray[np.uint64]  # bit patterns, whatever the width of the type
MOST_SHARED = 1024
MOST_ADAPTIVE = 1 << 19  # places, at about 10 microseconds each
FLOAT32_FIELDS = (1, 8, 23)  # sign, exponent, mantissa (IEEE 754)


def code_words(coder: Coder, shape: tuple[int, int], bits: int, words: Words | None = None, *, image: int = 1) -> Words:
    """Code a matrix of bit patterns.

    Args:
        shape: (rows, columns).
        bits: of each pattern: 8, 16, 32 or 64.
        words: (rows, columns), to encode; None to decode.
        image: columns to the next row of the picture that a row of weights is, such as a kernel's width.

    Raises:
        CodedError: what is decoded cannot have been written.
    """
    book = code_book(coder, bits, None if words is None else np.unique(words[words != 0]))
    if book is not None and not len(book):
        return np.zeros(shape, dtype=np.uint64)
    if book is None:
        return _code_unshared(coder, shape, bits, words, image)
    symbols = None if words is None else np.where(words == 0, 0, 1 + np.searchsorted(book, words))
    found = code_symbols(coder, shape, len(book), symbols, image=image)
    return np.concatenate([np.zeros(1, np.uint64), book])[found]


def _code_unshared(coder: Coder, shape: tuple[int, int], bits: int, words: Words | None, image: int) -> Words:
    """Places, where there are zeros, and the living patterns as plain bytes."""
    full = bool(code_number(coder, 1, int(words is not None and bool(words.all()))))
    if full:
        alive = np.ones(shape, dtype=bool)
    else:
        alive = code_symbols(coder, shape, 1, None if words is None else (words != 0).astype(np.intp), image=image) > 0
    content = b"" if words is None else words[alive].astype(f"<u{bits // 8}").tobytes()
    plain = coder.plain(int(alive.sum()) * bits // 8, content)
    out = np.zeros(shape, dtype=np.uint64)
    out[alive] = np.frombuffer(plain, dtype=f"<u{bits // 8}")
    return out


def code_book(coder: Coder, bits: int, values: Words | None = None) -> Words | None:
    """The different values but zero, sorted by pattern; None where they are too many to be shared."""
    count = code_count(coder, 0 if values is None else min(len(values), MOST_SHARED + 1), most=MOST_SHARED + 1)
    if count > MOST_SHARED:
        return None
    if values is None:
        values = np.zeros(count, dtype=np.uint64)
    if not count:
        return values
    spare = 0 if not values.any() else _trailing_zeros(values)
    spare = code_number(coder, 6, spare)
    if spare >= bits:
        raise CodedError("a codebook of values without bits")
    if bits == 32:
        return _code_floats(coder, values, spare)
    return np.array([code_number(coder, bits - spare, int(v) >> spare) << spare for v in values], dtype=np.uint64)


def _code_floats(coder: Coder, values: Words, spare: int) -> Words:
    """float32 patterns as sign, exponent above the least one, and as much of the mantissa as is used."""
    _, exponent_bits, mantissa_bits = FLOAT32_FIELDS
    exponents = (values >> np.uint64(mantissa_bits)) & np.uint64((1 << exponent_bits) - 1)
    least = code_number(coder, exponent_bits, int(exponents.min()))
    width = code_number(coder, 4, int(exponents.max() - exponents.min()).bit_length())
    kept = max(0, mantissa_bits - spare)
    found = []
    for value, exponent in zip(values.tolist(), exponents.tolist(), strict=True):
        sign = code_number(coder, 1, value >> 31)
        raised = least + code_number(coder, width, exponent - least)
        mantissa = code_number(coder, kept, (value & (1 << mantissa_bits) - 1) >> (mantissa_bits - kept))
        found.append(sign << 31 | (raised & 255) << mantissa_bits | mantissa << (mantissa_bits - kept))
    return np.array(found, dtype=np.uint64)


def _trailing_zeros(values: Words) -> int:
    together = int(np.bitwise_or.reduce(values))
    return (together & -together).bit_length() - 1


def code_symbols(
    coder: Coder, shape: tuple[int, int], kinds: int, symbols: NDArray[np.intp] | None = None, *, image: int = 1
) -> NDArray[np.intp]:
    """Code a matrix of 0 (no weight) and 1..kinds (which value), in rows.

    Whether a weight lives is told by how many live in its column and its row so far, and by its neighbours in the row,
    in the column, and in the picture that a row is; its value by the last in column and row, and by its neighbours in
    the picture. Matrices of more than `MOST_ADAPTIVE` places are coded by the frequencies of their symbols alone.
    """
    rows, columns = shape
    if rows * columns > MOST_ADAPTIVE:
        flat = None if symbols is None else symbols.reshape(-1)
        return coder.symbols(rows * columns, kinds + 1, flat).reshape(shape)
    out = np.zeros(shape, dtype=np.intp)
    lives, kind = Mixer(PLACE_CONTEXTS), Mixer(VALUE_CONTEXTS)
    edge = 2 * image + 1
    in_column = [0] * (columns + 2 * edge)  # padded on both sides, so that neighbours are always there
    above, above2 = [0] * len(in_column), [0] * len(in_column)
    last_in_column = [0] * len(in_column)
    for row in range(rows):
        now, alive = [0] * len(in_column), [0] * len(in_column)  # this row's symbols, and whether there is one
        in_row, last_in_row = 0, 0
        given = None if symbols is None else symbols[row].tolist()
        for column in range(columns):
            at = column + edge
            seen = in_column[at]
            near = in_column[at - 1] + in_column[at + 1] + in_column[at - image] + in_column[at + image]
            corners = (
                in_column[at - image - 1]
                + in_column[at - image + 1]
                + in_column[at + image - 1]
                + in_column[at + image + 1]
            )
            left, left2, up, right_up = alive[at - 1], alive[at - 2], alive[at - image], alive[at - image + 1]
            around = left + left2 + up + right_up + alive[at - image - 1] + alive[at - 2 * image]
            contexts = (
                column,
                _level(seen) << 8 | _level(row),
                _level(in_row) << 16 | _level(column) << 8 | _level(seen),
                left | left2 << 1 | up << 2 | right_up << 3 | above[at] << 4,
                _level(near) << 16 | _level(seen) << 8 | _level(row),
                _level(in_row) << 8 | _level(column),
                above[at] | above2[at] << 1 | above[at - 1] << 2 | above[at + 1] << 3 | _level(seen) << 8,
                _level(4 * seen + 2 * near + corners) << 8 | _level(in_row),
                around << 16 | _level(2 * seen + near),
            )
            symbol = 0 if given is None else given[column]
            if lives.bit(coder, contexts, min(row, 3), int(symbol > 0)):
                beside, over = now[at - 1], now[at - image]
                nearest = beside or over or now[at - image + 1] or now[at - image - 1]
                near_values = (last_in_column[at], last_in_row, nearest, beside << 12 | over)
                value = _code_value(coder, kind, (kinds - 1).bit_length(), symbol - 1, near_values)
                if value >= kinds:
                    raise CodedError("a value that is not in its codebook")
                out[row, column] = now[at] = last_in_column[at] = last_in_row = value + 1
                alive[at] = 1
                in_column[at] += 1
                in_row += 1
        above2, above = above, alive
    return out


def _code_value(coder: Coder, kind: Mixer, depth: int, value: int, near: tuple[int, int, int, int]) -> int:
    """Which of the values a weight has, bit by bit, the highest first."""
    node = 1
    in_column, in_row, nearest, two = near
    for place in range(depth - 1, -1, -1):
        contexts = (node, node << 12 | in_column, node << 12 | in_row, node << 12 | nearest, node << 24 | two)
        node = node << 1 | kind.bit(coder, contexts, 0, value >> place & 1)
    return node - (1 << depth)


PLACE_CONTEXTS = 9
VALUE_CONTEXTS = 5


def _level(count: int) -> int:
    """0, 1, 2, 3, then four steps to each doubling: a count as one of few."""
    if count < 4:
        return count
    width = count.bit_length()
    return 4 * width + (count >> (width - 3) & 3)
