"""The tables are the functions that they stand for; the mixer learns; and its numbers never change."""

import hashlib
import math
import random

import numpy as np

from compress.deployment.codec.encoder import Encoder
from zoo.files.codec.arithmetic import ONE, Decoder
from zoo.files.codec.mixing import LIMIT, SQUASH, STRETCH, UNIT, Mixer


def test_squash_is_the_logistic_function():
    expected = [ONE / (1 + math.exp(-x / UNIT)) for x in range(-LIMIT, LIMIT + 1)]
    np.testing.assert_allclose(SQUASH, expected, atol=1.0)
    assert min(SQUASH) >= 1
    assert max(SQUASH) < ONE


def test_stretch_is_its_inverse():
    middles = np.array([(cell << 4) + 8 for cell in range(ONE >> 4)]) / ONE
    expected = UNIT * np.log(middles / (1 - middles))
    inner = slice(32, -32)  # near 0 and 1 a step of SQUASH's integers is many units
    np.testing.assert_allclose(np.array(STRETCH)[inner], expected[inner], atol=8)


def bits_and_contexts(count=20000):
    """Every seventh bit is likely, the others are not; two of three contexts know nothing of it."""
    rng = random.Random(0)
    likely = [0.9 if i % 7 == 0 else 0.02 for i in range(count)]
    return [int(rng.random() < p) for p in likely], [(0, i % 7, rng.randrange(9)) for i in range(count)], likely


def coded(bits, contexts):
    encoder, mixer = Encoder(), Mixer(3)
    for bit, context in zip(bits, contexts, strict=True):
        mixer.bit(encoder, context, 0, bit)
    return encoder.finish()


def test_it_learns_what_there_is_to_know():
    bits, contexts, likely = bits_and_contexts()
    information = -sum(math.log2(p if bit else 1 - p) for p, bit in zip(likely, bits, strict=True))
    content = coded(bits, contexts)
    assert len(content) < 1.05 * information / 8
    decoder, mixer = Decoder(content), Mixer(3)
    assert [mixer.bit(decoder, context, 0) for context in contexts] == bits


def test_the_numbers_of_the_format_never_change():
    """Files that were written must be read for ever: who changes a table, a rate or a rule makes another format."""
    bits, contexts, _ = bits_and_contexts(3000)
    tables = np.array([*SQUASH, *STRETCH], dtype="<i4").tobytes()
    assert hashlib.sha256(tables).hexdigest() == "637f1628f37076571bafc1c11d1881902061dfa50d81fd696a8778cc16897fce"
    digest = hashlib.sha256(coded(bits, contexts)).hexdigest()
    assert digest == "c4c3725e8df665c53579436694b8450d5f0d584a9ff88078d603e4cc0fb24bf4"
