"""Ranges of a network's activations, from images that stream through it: one pass, memory that does not grow with them.

What a range leaves out is clipped, what it holds is rounded the more coarsely the wider it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.graph.run import tensors_of
from zoo.errors import SlimzooError, UsageError
from zoo.preprocess import Preprocess

Range = tuple[float, float]
BINS = 4096
NARROWEST = -120  # exponent of a bin's width; of zeros alone
CLIPPED = 1e-4  # share of the values that `percentile` leaves out, half of them at either end
STEPS = 255  # of a byte
BATCH_PIXELS = 1 << 16  # that are in a network at a time, whose activations are all held


@dataclass(frozen=True)
class Images:
    """(N, H, W, C) pixels as batches that a network takes; they can be gone through again and again.

    Raises:
        UsageError: pixels of another type or size than the Preprocess gives out, or none.
    """

    pixels: NDArray[Any]
    preprocess: Preprocess

    def __post_init__(self) -> None:
        size = (*self.preprocess.size, self.preprocess.channels)
        kind = np.float32 if self.preprocess.is_prepared else np.uint8
        wanted = (
            f"wanted {kind.__name__} ({', '.join(map(str, ('images', *size)))}), as Preprocess.resize gives them out"
        )
        if self.pixels.dtype != kind:
            raise UsageError(f"pixels of {self.pixels.dtype}; {wanted}")
        if self.pixels.shape[1:] != size or not len(self.pixels):
            raise UsageError(f"pixels of shape {self.pixels.shape}; {wanted}, at least one image")

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        height, width = self.pixels.shape[1:3]
        size = max(1, BATCH_PIXELS // (height * width))
        for start in range(0, len(self.pixels), size):
            yield self.preprocess.normalize(self.pixels[start : start + size])


@dataclass
class Histogram:
    """A histogram of all values of one tensor, with at most `BINS` bins.

    The bins reach from 0 to the least and the greatest value, as a quantized range does. Their width is a power of two,
    0 is the edge of one, and where values come that they do not hold, the width doubles and neighbours are added up,
    which is exact. So the histogram does not depend on how the values came.

    Attributes:
        low, high: the least and the greatest value.
        zeros: how many are 0; they lose nothing in quantization, and after a ReLU they are many.
        exponent: bin i holds i * 2**exponent <= value < (i + 1) * 2**exponent.
        first: index of the first bin.
        counts: (bins,).
    """

    low: float = math.inf
    high: float = -math.inf
    zeros: int = 0
    exponent: int = NARROWEST
    first: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Values of any shape.

        Raises:
            SlimzooError: one is not finite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise SlimzooError("values that are not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.zeros += int(values.size - np.count_nonzero(values))
        while self._bin(max(self.high, 0)) - self._bin(min(self.low, 0)) >= BINS:
            self._widen()
        bins = np.floor(values.ravel() * np.float32(2.0**-self.exponent)).astype(np.int32)  # a power of two is exact
        start, last = self._bin(min(self.low, 0)), self._bin(max(self.high, 0))
        counts = np.bincount(bins - start, minlength=last - start + 1)
        counts[self.first - start :][: self.counts.size] += self.counts
        self.first, self.counts = start, counts

    @property
    def centers(self) -> NDArray[np.float64]:
        bins = np.arange(self.first, self.first + self.counts.size, dtype=np.float64)
        return np.ldexp(bins + 0.5, self.exponent)

    def _bin(self, value: float) -> int:
        return math.floor(math.ldexp(value, -self.exponent))

    def _widen(self) -> None:
        counts = np.pad(self.counts, (self.first % 2, (self.first + self.counts.size) % 2))
        self.exponent, self.first, self.counts = self.exponent + 1, self.first // 2, counts.reshape(-1, 2).sum(1)


def watch(
    network: onnx.ModelProto, tensors: Collection[str], batches: Iterable[NDArray[np.float32]]
) -> dict[str, Histogram]:
    """A histogram of each of `tensors` while the network runs over (B, C, H, W) batches.

    Raises:
        SlimzooError: a batch holds, or a tensor takes, a value that is not finite; its name is told.
    """
    given = network.graph.input[0].name
    histograms = {name: Histogram() for name in tensors}
    for found in tensors_of(network, tensors, batches):
        for name, histogram in histograms.items():
            try:
                histogram.add(found[name])
            except SlimzooError as error:
                what = "the calibration images hold" if name == given else f"{name} takes"
                raise SlimzooError(f"{what} {error}; check the images and the Preprocess") from error
    return histograms


def min_max(histogram: Histogram) -> Range:
    """All values."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, clipped: float = CLIPPED) -> Range:
    """All but this share of the values, half of them at either end: from the edge of a bin to the edge of another."""
    below = np.cumsum(histogram.counts)
    total = int(below[-1])
    first = int(np.searchsorted(below, total * clipped / 2, side="right"))
    last = int(np.searchsorted(below, total * (1 - clipped / 2), side="left"))
    width = 2.0**histogram.exponent
    return (
        max(histogram.low, (histogram.first + first) * width),
        min(histogram.high, (histogram.first + last + 1) * width),
    )


def least_squares(histogram: Histogram, steps: int = STEPS) -> Range:
    """The range whose squared error is least, of values clipped to it and rounded to `steps` steps.

    The range is widened to hold 0, which is one of the steps, as ONNX has it. Searched by turns: both ends at the same
    share of the extremes, then the one, then the other.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    centers, counts = histogram.centers, histogram.counts.copy()
    counts[-histogram.first] -= histogram.zeros  # of bin 0, whose middle is not 0
    best = (low, high)
    for ends in ((True, True), (False, True), (True, False)):
        start = best
        shares = np.linspace(1, 0.02, 99)
        tried = [(start[0] * (s if ends[0] else 1), start[1] * (s if ends[1] else 1)) for s in shares]
        best = min(tried, key=lambda bounds: _squared_error(centers, counts, bounds, steps))
    return best


def _squared_error(centers: NDArray[np.float64], counts: NDArray[np.int64], bounds: Range, steps: int) -> float:
    scale = (bounds[1] - bounds[0]) / steps
    if scale == 0:
        return float((counts * centers**2).sum())
    zero = round(-bounds[0] / scale)
    rounded = (np.clip(np.rint(centers / scale) + zero, 0, steps) - zero) * scale
    return float((counts * (centers - rounded) ** 2).sum())
