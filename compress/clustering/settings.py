"""The settings of `cluster`."""

from __future__ import annotations

from zoo.settings import MOST_EPOCHS, Seeded, option


class Cluster(Seeded):
    """How few values, and how long they are trained.

    bits: 4 are 16 values for most tensors; codebooks count too.

    bit_price: in units of a tensor's mean squared weight (see `share_`); 0.006 took a tenth off LeNets.
    """

    bits: float = option(4.0, "For each weight that is not zero, on average.", gt=0, lt=float("inf"))
    bit_price: float = option(
        0.0, "How much further a weight may move to a value that takes fewer bits: 0.006.", ge=0, lt=float("inf")
    )
    epochs: int = option(4, "Epochs in which the shared values are trained.", ge=0, le=MOST_EPOCHS)
