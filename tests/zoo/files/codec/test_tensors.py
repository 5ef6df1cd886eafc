"""Matrices of bit patterns come back to the bit, and in fewer bytes than a general compressor takes."""

import lzma

import numpy as np
import pytest

from compress.deployment.codec.encoder import Encoder
from zoo.files.codec.arithmetic import Decoder, code_count
from zoo.files.codec.errors import CodedError
from zoo.files.codec.tensors import MOST_SHARED, code_symbols, code_words


def coded(words, bits, image=1):
    """(arithmetic code, bulk)"""
    encoder = Encoder()
    code_words(encoder, words.shape, bits, words, image=image)
    return encoder.finish(), bytes(encoder.bulk)


def size(words, bits, image=1):
    return sum(map(len, coded(words, bits, image)))


def floats(array):
    return np.asarray(array, dtype=np.float32).view(np.uint32).astype(np.uint64)


def sparse(rng, shape, *, share=0.05, values=8):
    """Rows and columns of different densities, as pruned layers have them, and a few values."""
    rows, columns = rng.random((shape[0], 1)) ** 3, rng.random((1, shape[1])) ** 3
    alive = rng.random(shape) < np.clip(rows * columns * share * 16, 0, 1)
    book = np.linspace(-0.5, 0.5, values).astype(np.float32)
    return floats(np.where(alive, rng.choice(book, shape), 0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 30), (0, 5), (5, 0)])
@pytest.mark.parametrize("image", [1, 5])
def test_sparse_and_shared(shape, image):
    words = sparse(np.random.default_rng(0), shape, share=0.3)
    np.testing.assert_array_equal(code_words(Decoder(*coded(words, 32, image)), shape, 32, image=image), words)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_every_width_and_any_pattern(bits):
    rng = np.random.default_rng(bits)
    words = (
        rng.integers(0, 1 << bits, (6, 11), dtype=np.uint64, endpoint=False)
        if bits < 64
        else (rng.integers(0, 1 << 63, (6, 11), dtype=np.uint64) * np.uint64(2) + np.uint64(1))
    )
    np.testing.assert_array_equal(code_words(Decoder(*coded(words, bits)), words.shape, bits), words)


def test_floats_that_are_no_numbers():
    """-0.0 is not 0.0, and each NaN is its own."""
    words = floats([[0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3.4e38, 1.0]])
    words[0, 3] |= 1  # another NaN
    found = code_words(Decoder(*coded(words, 32)), words.shape, 32)
    np.testing.assert_array_equal(found, words)
    assert found[0, 1] == 1 << 31


def test_more_values_than_a_codebook_takes():
    words = floats(np.random.default_rng(0).normal(size=(30, 50)))
    assert len(np.unique(words)) > MOST_SHARED
    content = coded(words, 32)
    np.testing.assert_array_equal(code_words(Decoder(*content), words.shape, 32), words)
    assert sum(map(len, content)) < 4.01 * words.size


def test_an_empty_layer_takes_a_byte():
    assert size(np.zeros((500, 800), dtype=np.uint64), 32) <= 1


def test_smaller_than_lzma():
    words = sparse(np.random.default_rng(0), (80, 196))
    packed = lzma.compress(
        np.searchsorted(np.unique(words), words).astype(np.uint8).tobytes(),
        format=lzma.FORMAT_RAW,
        filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}],
    )
    assert size(words, 32, image=14) < 0.86 * len(packed)


def test_neighbours_in_the_picture_help():
    """Weights that live in blobs of a 12 x 12 picture take fewer bits where the coder knows its width."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:12, :12]
    centres = rng.uniform(2, 10, (40, 2))
    blobs = np.array([((y - a) ** 2 + (x - b) ** 2 < 5).reshape(-1) for a, b in centres])
    words = floats(blobs * 0.5)
    assert size(words, 32, image=12) < 0.9 * size(words, 32)


def test_values_are_told_by_their_neighbours_in_the_picture():
    """Signs that flip at a place that differs from row to row cost less than the same signs shuffled."""
    rng = np.random.default_rng(0)
    x = np.mgrid[:12, :12][1].reshape(-1)
    alive = rng.random((60, 144)) < 0.5
    signs = np.where((x < rng.integers(2, 10, (60, 1))) ^ (rng.random((60, 1)) < 0.5), 1.0, -1.0)
    smooth = alive * signs
    shuffled = smooth.copy()
    for row in shuffled:
        row[row != 0] = rng.permutation(row[row != 0])
    living = int(alive.sum())
    assert size(floats(smooth), 32, image=12) < size(floats(shuffled), 32, image=12) - 0.6 * living / 8


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_cut_off_numbers_are_refused_or_end(length):
    """Whatever the bytes, decoding ends, with a matrix of the asked shape or a CodedError."""
    content = coded(sparse(np.random.default_rng(1), (20, 20), share=0.5), 32)[0][:length]
    try:
        assert code_words(Decoder(content), (20, 20), 32).shape == (20, 20)
    except CodedError:
        return


def test_random_bytes_do_no_harm():
    rng = np.random.default_rng(0)
    for _ in range(40):
        try:
            code_words(Decoder(rng.bytes(60), rng.bytes(30)), (9, 9), 32)
        except CodedError:
            continue


def test_a_value_outside_of_the_codebook():
    """Three values take two bits, and the fourth pattern of them was never written."""
    encoder = Encoder()
    code_symbols(encoder, (1, 60), 4, np.full((1, 60), 4))
    with pytest.raises(CodedError, match="not in its codebook"):
        code_symbols(Decoder(encoder.finish()), (1, 60), 3)


def test_a_codebook_of_values_without_bits():
    encoder = Encoder()
    code_count(encoder, 3, most=10)
    for _ in range(6):
        encoder.bit(1 << 15, 1)
    with pytest.raises(CodedError, match="without bits"):
        code_words(Decoder(encoder.finish()), (2, 2), 32)
