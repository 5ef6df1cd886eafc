"""What the tables promise: between what was measured, and at the speed that the machine has when it counts."""

from __future__ import annotations

import pytest

from compress.plan.promises import in_step, interpolated
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
