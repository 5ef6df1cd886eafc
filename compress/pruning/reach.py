"""What a model's shapes decide of a cut, before an image is read: how small it can become, and that it can be saved."""

from __future__ import annotations

import numpy as np
from torch import nn

from compress.dependency.cut import cut_copy
from compress.dependency.group import Grouping, Indices
from compress.pruning import latency as timing
from compress.pruning.allocate import Scores, check_reachable, narrowed, uniformly
from compress.pruning.budget import Cost
from compress.pruning.depth import SHARES
from compress.pruning.importance import l2_norm
from compress.pruning.settings import Choice
from compress.pruning.structured import Pruned, accepted, cut_channels, scored


def trial_cut(
    network: nn.Module, input_size: tuple[int, int, int], grouping: Grouping, choice: Choice, *, measures: bool = True
) -> Pruned:
    """A cut of the first round's size, by magnitudes: what the pruned model will look like, whatever images say.

    Args:
        grouping: of the network.
        measures: whether two networks are timed to see that the latency can be reached.

    Raises:
        UsageError: a budget that no cut reaches, or that the model meets already.
        SlimzooError: the cut model does not run.
    """
    latency, rounds, round_to, floor = choice.latency, choice.rounds, choice.round_to, choice.floor
    if latency is not None and measures:
        keeps = _narrowest(grouping, round_to, floor**rounds)
        timed = [network, cut_copy(network, grouping, keeps)]  # instead of the dozens of a latency table
        whole, least = (float(ms) for ms in timing.measured_ms(timed, input_size, threads=choice.threads))
        timing.check_within_reach(latency, whole, least)

    def cut(grouping: Grouping, scores: Scores) -> Pruned:
        cost = Cost.macs(grouping)
        share = SHARES[0] if choice.macs is None else choice.macs
        if latency is None:
            narrowest = _narrowest(grouping, round_to, floor**rounds)
            check_reachable(cost, narrowest, share, round_to=round_to, floor=floor**rounds)
        least = cost.after(_narrowest(grouping, round_to, floor)) / cost.total
        first = min(1.0, max(share ** (1 / rounds), least * (1 + 1e-9)))
        keeps = uniformly(grouping, scores, share=first, cost=cost, round_to=round_to, floor=floor)
        return cut_channels(network, input_size, grouping, keeps, scores)

    return accepted(cut, grouping, scored(network, grouping, l2_norm))


def _narrowest(grouping: Grouping, round_to: int, floor: float) -> list[Indices]:
    return narrowed(grouping, np.zeros(len(grouping.groups)), round_to=round_to, floor=floor)
