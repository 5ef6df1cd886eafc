"""Many symbols at once: back as they were, near their entropy, and refused where they end too early."""

import numpy as np
import pytest

import zoo.files.codec.tensors
from compress.deployment.codec.ans import encode_symbols, frequencies_of
from compress.deployment.codec.encoder import Encoder
from zoo.files.codec.ans import PER_LANE, SCALE, decode_symbols
from zoo.files.codec.arithmetic import Decoder
from zoo.files.codec.errors import CodedError
from zoo.files.codec.tensors import code_words


@pytest.mark.parametrize("count", [0, 1, 100, PER_LANE, PER_LANE + 1, 5 * PER_LANE + 77])
@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.5), (0.97, 0.02, 0.0, 0.0099, 0.0001)])
def test_symbols_come_back_near_their_entropy(count, shares):
    symbols = np.random.default_rng(count).choice(len(shares), count, p=shares)
    frequencies = frequencies_of(symbols, len(shares)) if count else np.array([1 << SCALE], dtype=np.uint64)
    states, words = encode_symbols(symbols, frequencies)
    np.testing.assert_array_equal(decode_symbols(states, words, frequencies, count), symbols)
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    entropy = float(-(counts * np.log2(counts / max(1, count))).sum())
    assert 16 * len(words) + 32 * len(states) <= 1.01 * entropy + 33 * len(states)


def test_frequencies_add_up_however_uneven():
    for counts in ([1] * 1000 + [10**9], [0, 0, 5], [1] * 1024):
        symbols = np.repeat(np.arange(len(counts)), np.minimum(counts, 10**5))
        frequencies = frequencies_of(symbols, len(counts))
        assert frequencies.sum() == 1 << SCALE
        assert ((frequencies > 0) == (np.array(counts) > 0)).all()


def test_what_cannot_be_is_refused():
    symbols = np.random.default_rng(0).choice(4, 1000)
    frequencies = frequencies_of(symbols, 4)
    states, words = encode_symbols(symbols, frequencies)
    with pytest.raises(CodedError, match="end too early"):
        decode_symbols(states, words[:-3], frequencies, 1000)
    with pytest.raises(CodedError, match="do not add up"):
        decode_symbols(states, words, frequencies + np.uint64(1), 1000)


@pytest.mark.parametrize("values", [8, 5000])
def test_a_large_tensor_takes_the_fast_way(monkeypatch, values):
    """Shared or not, sparse: the same words from the fast way as from the adaptive one."""
    rng = np.random.default_rng(0)
    book = rng.normal(size=values).astype(np.float32)
    weights = np.where(rng.random((90, 110)) < 0.2, rng.choice(book, (90, 110)), 0).astype(np.float32)
    words = weights.view(np.uint32).astype(np.uint64)
    monkeypatch.setattr(zoo.files.codec.tensors, "MOST_ADAPTIVE", 1000)
    encoder = Encoder()
    code_words(encoder, words.shape, 32, words)
    content = encoder.finish()
    assert len(encoder.bulk) > 10 * len(content)
    found = code_words(Decoder(content, bytes(encoder.bulk)), words.shape, 32)
    np.testing.assert_array_equal(found, words)
    for cut in (0, len(encoder.bulk) - 1):
        with pytest.raises(CodedError):
            code_words(Decoder(content, bytes(encoder.bulk[:cut])), words.shape, 32)
