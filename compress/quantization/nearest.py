"""What brings an int8 network's answers nearest to the float network's, tried in turn and kept where it pays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.quantization.adaround import adaround
from compress.quantization.bias import correct_biases, input_means
from compress.quantization.calibrate import Histogram, watch
from compress.quantization.cpu import Scheme, best_scheme
from compress.quantization.equalize import equalize, without_ceilings
from compress.quantization.fidelity import logits_of
from compress.quantization.ptq import Quantized, quantize_static, rounded_activations
from compress.quantization.rounding import Roundings, round_to_nearest, with_weights, without
from compress.quantization.settings import RANGES
from transfer.evaluation.divergence import divergence
from zoo.progress import Progress

PAYS = 0.05  # share of the divergence that a change has to take away: below, it is as likely chance
# Before the rounding of weights is learned: their share of the divergence, and the nats an image that are left with
# biases corrected. Learned, emoji (180 images at 160 px) took 129 s instead of 21, and came from 0.0008 to 0.0005 nats:
# of 865 images that were kept back as many were right.
TO_BLAME, WORTH_LEARNING = 0.25, 1e-2
EQUALIZED, WITHOUT_CEILINGS = "equalized", "equalized, ReLU for ReLU6"
ROUNDED, CORRECTED, TRAINED = "rounding learned", "biases corrected", "trained with rounding"
CHANGES = (EQUALIZED, WITHOUT_CEILINGS, ROUNDED, CORRECTED)

Batches = Iterable[NDArray[np.float32]]


@dataclass(frozen=True)
class Nearest:
    """The int8 network that was nearest, and how it was found.

    Attributes:
        divergence: of its answers from the float network's, in nats an image.
        tried: ranges or change -> divergence with it, in the order in which they were tried.
        taken: the changes that paid.
        exact: the float network, with these changes.
        histograms: of its activations.
        roundings: of its weights.
    """

    quantized: Quantized
    divergence: float
    tried: Mapping[str, float]
    taken: tuple[str, ...]
    exact: onnx.ModelProto
    histograms: Mapping[str, Histogram]
    roundings: Roundings

    def or_better(self, other: Nearest) -> Nearest:
        """The other, where it pays."""
        return other if other.divergence < (1 - PAYS) * self.divergence else self


def nearest(
    network: onnx.ModelProto,
    calibration: Batches,
    unseen: Batches,
    *,
    ranges: Sequence[Any] = tuple(RANGES),
    keep: Collection[str] = (),
    scheme: Scheme | None = None,
    trained: Roundings | None = None,
    changes: Collection[str] = CHANGES,
    settled: bool = False,
    progress: Progress | None = None,
) -> Nearest:
    """Quantize by each of `ranges`; then equalize, learn the rounding and correct biases, each where it pays.

    That is where answers come nearer to the float network's. The rounding of weights, which takes longest, is learned
    where corrected biases do not suffice and rounded weights alone make much of the difference: with few bits, hardly
    ever with eight.

    Args:
        calibration: (B, C, H, W) batches for ranges, means and roundings; gone through several times.
        unseen: others, on which the answers are compared; gone through once for each trial.
        ranges: names in `RANGES`, or functions.
        keep: names of layers that stay in float.
        trained: weights that training brought onto their grids; then nothing is changed, ranges alone are tried.
        changes: those that are tried.
        settled: whether they are made, whatever they bring here.

    Raises:
        see `quantize_static`.
    """
    at_work = _Attempts(
        calibration,
        unseen,
        logits_of(network, unseen),
        keep,
        scheme or best_scheme(),
        trained or {},
        changes,
        settled=settled,
        progress=progress,
    )
    best = at_work.by_ranges(network, ranges)
    if trained is not None:
        return replace(best, taken=(TRAINED,))
    return at_work.rounded(at_work.equalized(best, network))


@dataclass
class _Attempts:
    """What `nearest` tries, with its arguments.

    Attributes:
        expected: the float network's answers to `unseen`.
        tried: see `Nearest`.
    """

    calibration: Batches
    unseen: Batches
    expected: NDArray[np.float64]
    keep: Collection[str]
    scheme: Scheme
    trained: Roundings
    changes: Collection[str]
    settled: bool
    progress: Progress | None
    tried: dict[str, float] = field(default_factory=dict)

    def by_ranges(self, network: onnx.ModelProto, ranges: Sequence[Any]) -> Nearest:
        seen, to = self._watched(network)
        found = [self._attempt(str(RANGES.name(by)), network, seen, to, by) for by in ranges]
        return replace(min(found, key=lambda each: each.divergence), taken=())

    def equalized(self, best: Nearest, network: onnx.ModelProto) -> Nearest:
        by = best.quantized.ranges
        for name, start in ((EQUALIZED, network), (WITHOUT_CEILINGS, without_ceilings(network))):
            equal, pairs = equalize(start) if start is not None else (network, [])
            if pairs and name in self.changes:
                best = self._better(best, self._attempt(name, equal, *self._watched(equal), by))
        return best

    def rounded(self, best: Nearest) -> Nearest:
        """With biases corrected, and with the rounding learned before where that is worth its time."""
        near = self._corrected(best)
        if ROUNDED not in self.changes:
            return near
        if not self.settled and (
            near.divergence < WORTH_LEARNING or self._by_weights(best) <= TO_BLAME * best.divergence
        ):
            return near
        to = adaround(best.exact, best.roundings, self.calibration, progress=self.progress)
        by = best.quantized.ranges
        learned = self._better(best, self._attempt(ROUNDED, best.exact, best.histograms, to, by, *best.taken))
        return near if learned is best else self._better(near, self._corrected(learned))

    def _corrected(self, found: Nearest) -> Nearest:
        if CORRECTED not in self.changes:
            return found
        exact = correct_biases(found.exact, found.quantized.network, input_means(found.exact, self.calibration))
        by = found.quantized.ranges
        made = self._attempt(CORRECTED, exact, found.histograms, found.roundings, by, *found.taken)
        return self._better(found, made)

    def _attempt(
        self, name: str, exact: onnx.ModelProto, seen: Mapping[str, Histogram], to: Roundings, by: Any, *before: str
    ) -> Nearest:
        quantized = quantize_static(exact, histograms=seen, ranges=by, keep=self.keep, scheme=self.scheme, roundings=to)
        self.tried[name] = divergence(self.expected, logits_of(quantized.network, self.unseen))
        return Nearest(quantized, self.tried[name], self.tried, (*before, name), exact, seen, to)

    def _better(self, found: Nearest, other: Nearest) -> Nearest:
        return other if self.settled else found.or_better(other)

    def _watched(self, network: onnx.ModelProto) -> tuple[Mapping[str, Histogram], Roundings]:
        """Its activations on the images that calibrate, and its weights, to nearest or as they were trained."""
        seen = watch(network, rounded_activations(network), self.calibration)
        nearest_weights = {**round_to_nearest(network, self.scheme.bits), **self.trained}
        return seen, without(nearest_weights, network, self.keep)

    def _by_weights(self, found: Nearest) -> float:
        """How far rounded weights alone take the answers."""
        rounded = with_weights(found.exact, {name: each.weight for name, each in found.roundings.items()})
        return divergence(self.expected, logits_of(rounded, self.unseen))
