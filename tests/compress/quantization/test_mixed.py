"""Which layers go back to float: an order by harm and time, and as few as will do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from compress.quantization.mixed import cheapest_first, fewest
from compress.quantization.sensitivity import Blame


def layer(name, share, saved_ms, macs=1000):
    return Blame(
        layer=name, macs=macs, weight_sqnr_db=30.0, output_sqnr_db=30.0, saved_ms=saved_ms, divergence=1.0, share=share
    )


def test_harm_for_the_time_that_float_costs():
    slower = layer("int8 is slower", 0.01, -0.2)
    dear, cheap = layer("dear", 0.5, 1.0), layer("cheap", 0.4, 0.1)
    helped, unseen = layer("helped", -0.1, 0.1), layer("not in the profile", 0.3, None, macs=10)
    ranking = [dear, cheap, unseen, slower, helped]
    order = cheapest_first(ranking)
    assert order == ["not in the profile", "int8 is slower", "cheap", "dear"]


@pytest.mark.parametrize(("layers", "needed"), list(itertools.product([1, 2, 5, 8, 13], [1, 2, 3, 5, 8, 13])))
def test_as_few_as_will_do(layers, needed):
    names, asked = [str(i) for i in range(layers)], []

    def holds(kept):
        asked.append(kept)
        return len(kept) >= needed

    found = fewest(names, holds)
    assert found == (tuple(names[:needed]) if needed <= layers else None)
    assert len(asked) <= 2 * np.log2(layers) + 2
