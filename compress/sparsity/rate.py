"""What it costs to say where a living weight is, so that a ranking can weigh its importance against its bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compress.recovery.masks import Masks
from compress.sparsity.scores import WeightScores

VALUE_BITS = 3.0  # what one of about 8 unequally frequent values takes, besides its place
MOST_BITS = 16.0


@dataclass(frozen=True)
class PerBit:
    """Scores divided by an estimate of the bits that a weight's place and value take in a coded file.

    A place costs -log2 of the probability that a coder which knows the density of the weight's row and column gives it.
    So a weight alone in its row must be worth more than one among many, thin rows and columns empty first, and whole
    units go: the tradeoff of Choi, El-Khamy and Lee 2017 (entropy-constrained, https://arxiv.org/abs/1612.01543),
    applied to places instead of values.

    Attributes:
        power: of the bits; 0 ranks by the scores alone.
    """

    power: float = 1.0

    def __call__(self, scores: WeightScores, living: Masks) -> WeightScores:
        return {name: score / self._bits(living[name]) ** self.power for name, score in scores.items()}

    def _bits(self, mask: torch.Tensor) -> torch.Tensor:
        alive = mask.flatten(1).float()  # (O, I * kh * kw)
        rows, columns = alive.mean(dim=1, keepdim=True), alive.mean(dim=0, keepdim=True)
        probability = rows * columns / alive.mean().clamp(min=1e-12)
        bits = -probability.clamp(2.0**-MOST_BITS, 1.0).log2() + VALUE_BITS
        return bits.view(mask.shape)
