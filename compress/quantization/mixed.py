"""Mixed precision: which layers stay in float, so that the accuracy holds and the least time is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compress.quantization.sensitivity import Blame

LEAST_MS = 1e-4  # below what a profile can tell: such a layer costs nothing in float


def cheapest_first(ranking: Sequence[Blame]) -> list[str]:
    """Layers whose rounding does harm, by how much of it goes for each millisecond that float costs.

    A layer of which the profile says nothing is taken to cost as much, by its MACs, as the others do.
    """
    timed = [each for each in ranking if each.saved_ms is not None]
    rate = sum(max(each.saved_ms or 0.0, 0.0) for each in timed) / max(1, sum(each.macs for each in timed))

    def worth(each: Blame) -> float:
        return each.share / max(each.macs * rate if each.saved_ms is None else each.saved_ms, LEAST_MS)

    return [each.layer for each in sorted(ranking, key=worth, reverse=True) if each.share > 0]


def fewest(layers: Sequence[str], holds: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...] | None:
    """How many of the first layers have to stay in float; None where all are not enough.

    Doubled until it holds, then halved between: an accuracy that rose and fell in between would not be noticed.

    Args:
        holds: whether the accuracy does, with these in float; asked about 2 log2(layers) times.
    """
    failed, count = 0, 1
    while not holds(tuple(layers[:count])):
        failed = count
        if count >= len(layers):
            return None
        count = min(2 * count, len(layers))
    while count - failed > 1:
        middle = (failed + count) // 2
        if holds(tuple(layers[:middle])):
            count = middle
        else:
            failed = middle
    return tuple(layers[:count])
