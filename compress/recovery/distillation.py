"""How much a student learns from its teacher. No torch here: the command line reads the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How much of what is learned from the teacher.

    Attributes:
        temperature: that both sides' logits are divided by (Hinton, Vinyals and Dean 2015, arXiv 1503.02531, sec. 2);
            4 is what Cho and Hariharan 2019 (arXiv 1910.01348, sec. 3) and Tian et al. 2020 (arXiv 1910.10699, sec. 6)
            use.
        weight: the teacher's share of the loss on logits; the labels have the rest. 0.9, ibid.
        features: weight of the similarity-preserving loss on what enters the classifier (Tung and Mori 2019, arXiv
            1907.09682, eq. 4, with 3,000 for batches of 128), which asks nothing of the widths of the two; 0 is none.
            ResNet-20 on digits, cut to a quarter, 288 steps of 32 images: 97.5, 96.7 and 93.3% with 0, 300 and 3,000.

    Raises:
        UsageError: a value out of its range.
    """

    temperature: float = 4.0
    weight: float = 0.9
    features: float = 0.0

    def __post_init__(self) -> None:
        for name, holds, wanted in (
            ("temperature", 0 < self.temperature < float("inf"), "above 0"),
            ("weight", 0 <= self.weight <= 1, "in [0, 1]"),
            ("features", 0 <= self.features < float("inf"), "at least 0"),
        ):
            if not holds:
                raise UsageError(f"{name}={getattr(self, name)} must be {wanted}")
