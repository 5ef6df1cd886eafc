"""The settings of `sparsify`, and the criteria and rankings that it knows by name.

A criterion or a ranking of your own is an object, or "module:object" on the command line. To add one under a name,
write it in scores.py or rank.py and add a line here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, model_validator

from zoo.choices import Choices
from zoo.errors import UsageError
from zoo.settings import MOST_EPOCHS, Seeded, option

DENSITY = 0.1
WEIGHT_CRITERIA = Choices(
    "criterion",
    {
        "lamp": "compress.sparsity.scores:lamp",
        "magnitude": "compress.sparsity.scores:magnitude",
        "taylor": "compress.sparsity.scores:WeightTaylor",
    },
)
RANKINGS = Choices(
    "ranking", {"network": "compress.sparsity.rank:over_network", "layer": "compress.sparsity.rank:by_layer"}
)
Criterion = Annotated[Any, BeforeValidator(WEIGHT_CRITERIA.checked), PlainSerializer(WEIGHT_CRITERIA.name)]
Ranking = Annotated[Any, BeforeValidator(RANKINGS.checked), PlainSerializer(RANKINGS.name)]


class Sparsify(Seeded):
    """Which weights become zero, and in how many epochs.

    Raises:
        UsageError: a name that is not known, a value out of its range, a pattern beside what it decides itself.
    """

    density: float | None = option(None, f"Share of the weights that stay, in (0, 1]; {DENSITY} unless given.")
    pattern: str | None = option(None, "Instead: N of every M weights stay, by magnitude: 2:4.", metavar="N:M")
    criterion: Criterion = option(
        None, f"{', '.join(WEIGHT_CRITERIA)}, or module:object; lamp unless given.", metavar="NAME"
    )
    ranking: Ranking = option(
        None,
        "network: one for all layers, unless given; layer: the same density in each; or module:object.",
        metavar="NAME",
    )
    epochs: int = option(12, "Epochs in which weights go and the others recover.", ge=1, le=MOST_EPOCHS)

    @model_validator(mode="after")
    def _check(self) -> Sparsify:
        if self.density is not None and not 0 < self.density <= 1:
            raise UsageError(
                f"density={self.density} must be in (0, 1]: the share of the weights that stays, 0.05 for 1 in 20"
            )
        if self.pattern is not None:
            parse_pattern(self.pattern)
            for name, given in (("density", self.density), ("criterion", self.criterion), ("ranking", self.ranking)):
                if given is not None:
                    raise UsageError(
                        f"--pattern {self.pattern} says which weights stay, the largest of each run: leave out "
                        f"--{name} {given}"
                    )
        return self


def parse_pattern(text: str) -> tuple[int, int]:
    """ "2:4" as n and m.

    Raises:
        UsageError: it is no such text, or not 0 < n <= m.
    """
    if not re.fullmatch(r"\d+:\d+", text):
        raise UsageError(f"pattern={text!r} must be N:M, such as 2:4 for two of every four weights")
    n, _, m = text.partition(":")
    check_n_of_m(int(n), int(m))
    return int(n), int(m)


def check_n_of_m(n: int, m: int) -> None:
    """Raises:
    UsageError: not 0 < n <= m.
    """
    if not 0 < n <= m:
        raise UsageError(f"{n}:{m} sparsity: wanted n of m weights with 0 < n <= m, such as 2:4")
