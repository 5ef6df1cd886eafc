"""Bits and counts come back as they went in, at the length that their probabilities say."""

import math
import random

import pytest

from compress.deployment.codec.encoder import Encoder
from zoo.files.codec.arithmetic import ONE, Decoder, code_count, code_number
from zoo.files.codec.errors import CodedError


def drawn(seed, count):
    """[(probability of a 1 in 1/65536, bit)], the extremes among them."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        one = rng.choice([1, 2, 300, ONE // 2, ONE - 300, ONE - 1, rng.randrange(1, ONE)])
        pairs.append((one, int(rng.randrange(ONE) < one)))
    return pairs


@pytest.mark.parametrize("seed", range(20))
def test_bits_come_back_at_the_length_of_their_information(seed):
    pairs = drawn(seed, seed * 40)
    encoder = Encoder()
    for one, bit in pairs:
        assert encoder.bit(one, bit) == bit
    content = encoder.finish()
    decoder = Decoder(content)
    assert [decoder.bit(one) for one, _ in pairs] == [bit for _, bit in pairs]
    information = -sum(math.log2((one if bit else ONE - one) / ONE) for one, bit in pairs)
    assert len(content) <= information / 8 + 2


def test_improbable_bits_come_back():
    """The worst case of a carry-free coder: its interval becomes narrow around a byte's edge, and must not vanish."""
    pairs = [(one, bit) for one in (1, ONE - 1, ONE // 2) for bit in (0, 1)] * 200
    encoder = Encoder()
    for one, bit in pairs:
        encoder.bit(one, bit)
    decoder = Decoder(encoder.finish())
    assert [decoder.bit(one) for one, _ in pairs] == [bit for _, bit in pairs]


def test_the_decoder_does_not_run_on_for_ever():
    decoder = Decoder(b"")
    with pytest.raises(CodedError, match="end too early"):
        code_number(decoder, 200)


def test_numbers_and_counts():
    encoder = Encoder()
    for number in (0, 1, 2, 3, 1000, (1 << 40) - 1):
        code_count(encoder, number, most=1 << 41)
        code_number(encoder, 41, number)
    decoder = Decoder(encoder.finish())
    for number in (0, 1, 2, 3, 1000, (1 << 40) - 1):
        assert code_count(decoder, most=1 << 41) == number
        assert code_number(decoder, 41) == number


def test_counts_that_cannot_be_are_refused():
    encoder = Encoder()
    code_count(encoder, 1000, most=1000)
    content = encoder.finish()
    with pytest.raises(CodedError, match="1000 where at most 999"):
        code_count(Decoder(content), most=999)
    with pytest.raises(CodedError, match="larger than any"):
        code_count(Decoder(bytes(20)), most=1 << 70)
