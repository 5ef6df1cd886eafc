"""What brings an int8 network's answers nearest to the float network's, tried in turn and kept where it pays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from compress.quantization.rounding import Rounded, Roundings, round_to_nearest, with_weights, without
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
    scheme = scheme or best_scheme()
    expected = logits_of(network, unseen)
    tried: dict[str, float] = {}

    def attempt(
        name: str, exact: onnx.ModelProto, seen: Mapping[str, Histogram], to: Roundings, by: Any, *before: str
    ) -> Nearest:
        quantized = quantize_static(exact, histograms=seen, ranges=by, keep=keep, scheme=scheme, roundings=to)
        tried[name] = divergence(expected, logits_of(quantized.network, unseen))
        taken = () if name == RANGES.name(by) else (*before, name)
        return Nearest(quantized, tried[name], tried, taken, exact, seen, to)

    rounded_weights = partial(_rounded_weights, bits=scheme.bits, trained=trained or {}, keep=keep)
    seen, to = watch(network, rounded_activations(network), calibration), rounded_weights(network)
    by_ranges = [attempt(str(RANGES.name(by)), network, seen, to, by) for by in ranges]
    best = min(by_ranges, key=lambda found: found.divergence)
    by = best.quantized.ranges
    if trained is not None:
        return replace(best, taken=(TRAINED,))

    def better(found: Nearest, other: Nearest) -> Nearest:
        return other if settled else found.or_better(other)

    for name, start in ((EQUALIZED, network), (WITHOUT_CEILINGS, without_ceilings(network))):
        equal, pairs = equalize(start) if start is not None else (network, [])
        if pairs and name in changes:
            seen, to = watch(equal, rounded_activations(equal), calibration), rounded_weights(equal)
            best = better(best, attempt(name, equal, seen, to, by))

    def corrected(found: Nearest) -> Nearest:
        if CORRECTED not in changes:
            return found
        exact = correct_biases(found.exact, found.quantized.network, input_means(found.exact, calibration))
        return better(found, attempt(CORRECTED, exact, found.histograms, found.roundings, by, *found.taken))

    near = corrected(best)
    if ROUNDED not in changes:
        return near
    if not settled and (
        near.divergence < WORTH_LEARNING or _by_weights(best, expected, unseen) <= TO_BLAME * best.divergence
    ):
        return near
    to = adaround(best.exact, best.roundings, calibration, progress=progress)
    learned = better(best, attempt(ROUNDED, best.exact, best.histograms, to, by, *best.taken))
    return near if learned is best else better(near, corrected(learned))


def _rounded_weights(
    exact: onnx.ModelProto, *, bits: int, trained: Roundings, keep: Collection[str]
) -> dict[str, Rounded]:
    return without({**round_to_nearest(exact, bits), **trained}, exact, keep)


def _by_weights(found: Nearest, expected: NDArray[np.float64], unseen: Batches) -> float:
    """How far rounded weights alone take the answers."""
    rounded = with_weights(found.exact, {name: each.weight for name, each in found.roundings.items()})
    return divergence(expected, logits_of(rounded, unseen))
