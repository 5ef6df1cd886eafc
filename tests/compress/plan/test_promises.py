"""What the tables promise: between what was measured, and at the speed that the machine has when it counts."""

from __future__ import annotations

import pytest

from compress.plan.promises import counts_of, in_step, interpolated
from compress.plan.trial import Candidate

OVERHEAD_MS = 7.0
NETWORKS = [
    {"share": share, "int8": int8, "latency_ms": ms / (2 if int8 else 1), "size_bytes": size}
    for share, ms, size in ((1.0, 8.0, 400), (0.25, 2.0, 100))
    for int8 in (False, True)
]


@pytest.fixture
def promised():
    return interpolated(NETWORKS, [0.5, 0.25, 0.1], OVERHEAD_MS)


def test_between_what_was_measured_costs_follow_the_logarithm_of_the_share(promised):
    assert promised[Candidate()]["latency_ms"] == pytest.approx(8.0)
    assert promised[Candidate(0.5)]["latency_ms"] == pytest.approx(4.0)  # halfway in logarithms
    assert promised[Candidate(0.5, int8=True)]["size_bytes"] == pytest.approx(200)
    assert promised[Candidate(0.1)]["latency_ms"] == pytest.approx(2.0)  # no less than what was measured
    assert promised[Candidate(0.5)]["answer_ms"] == pytest.approx(4.0 + OVERHEAD_MS)


def test_half_of_the_blocks_take_half_of_what_they_save(promised):
    """Of shares that the network without any has, less than is left of it by that alone."""
    without = [
        {"share": share, "blocks": 5, "int8": int8, "latency_ms": ms / (2 if int8 else 1), "size_bytes": 200}
        for share, ms in ((0.3, 1.0), (0.1, 0.5))
        for int8 in (False, True)
    ]
    found = interpolated([*NETWORKS, *without], [0.5, 0.25, 0.1], OVERHEAD_MS)
    assert {candidate: found[candidate] for candidate in promised} == promised
    assert {(c.share, c.blocks) for c in found if c.blocks} == {(s, n) for s in (0.25, 0.1) for n in (3, 5)}
    for int8 in (False, True):
        assert found[Candidate(0.1, int8, blocks=5)]["latency_ms"] == pytest.approx(0.5 / (1 + int8))
        assert found[Candidate(0.1, int8, blocks=3)]["latency_ms"] == pytest.approx((2.0 + 0.5) / 2 / (1 + int8))
        assert found[Candidate(0.1, int8, blocks=3)]["answer_ms"] == pytest.approx(1.25 / (1 + int8) + OVERHEAD_MS)
    assert counts_of([*NETWORKS, *without]) == [0, 3, 5]
    assert counts_of(NETWORKS) == [0]


def test_a_machine_that_has_become_slower_is_so_for_all_networks_and_for_them_alone(promised):
    slow = in_step(promised, 12.0)
    for candidate, costs in promised.items():
        assert slow[candidate]["latency_ms"] == pytest.approx(1.5 * costs["latency_ms"])
        assert slow[candidate]["answer_ms"] - slow[candidate]["latency_ms"] == pytest.approx(OVERHEAD_MS)
        assert slow[candidate]["size_bytes"] == costs["size_bytes"]


def test_without_a_time_of_the_whole_model_promises_stay_as_they_are(promised):
    assert in_step(promised, None) == promised
    untimed = interpolated([{**each, "latency_ms": None} for each in NETWORKS], [0.5])
    assert in_step(untimed, 5.0) == untimed
