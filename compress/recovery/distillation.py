"""How much a student learns from its teacher."""

from __future__ import annotations

from zoo.settings import Settings, option


class Distillation(Settings):
    """How much of what is learned from the teacher.

    temperature: Hinton, Vinyals and Dean 2015, arXiv 1503.02531, sec. 2; 4 is what Cho and Hariharan 2019 (arXiv
    1910.01348, sec. 3) and Tian et al. 2020 (arXiv 1910.10699, sec. 6) use. weight: 0.9, ibid.

    features: the similarity-preserving loss on what enters the classifier (Tung and Mori 2019, arXiv 1907.09682, eq. 4,
    with 3,000 for batches of 128), which asks nothing of the widths of the two. ResNet-20 on digits, cut to a quarter,
    288 steps of 32 images: 97.5, 96.7 and 93.3% with 0, 300 and 3,000.
    """

    temperature: float = option(4.0, "What the logits of teacher and student are divided by.", gt=0, lt=float("inf"))
    weight: float = option(0.9, "Share of the teacher in the loss; labels have the rest.", ge=0, le=1)
    features: float = option(
        0.0, "Weight of a loss on which images look alike to the teacher; 0 is none.", ge=0, lt=float("inf")
    )
