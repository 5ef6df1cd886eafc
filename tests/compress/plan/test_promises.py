"""What the tables promise: between what was measured, and at the speed that the machine has when it counts."""

from __future__ import annotations

import pytest

from compress.plan import cuts as cuts_module
from compress.plan.cuts import Cuts, counts_of
from compress.plan.promises import as_small, as_they_are, in_step, interpolated, promised_ms
from compress.plan.trial import Candidate
from zoo.create import create_model
from zoo.errors import SlimzooError
from zoo.files.model_directory import LoadedModel, ModelConfig
from zoo.preprocess import Preprocess

OVERHEAD_MS = 7.0
NETWORKS = [
    {"share": share, "int8": int8, "latency_ms": ms / (2 if int8 else 1), "size_bytes": size}
    for share, ms, size in ((1.0, 8.0, 400), (0.25, 2.0, 100))
    for int8 in (False, True)
]


def promised_of(networks):
    return interpolated(networks, [0.5, 0.25, 0.1], OVERHEAD_MS)


@pytest.fixture
def promised():
    return promised_of(NETWORKS)


def test_between_what_was_measured_costs_follow_the_logarithm_of_the_share(promised):
    assert promised[Candidate()]["latency_ms"] == pytest.approx(8.0)
    assert promised[Candidate(0.5)]["latency_ms"] == pytest.approx(4.0)  # halfway in logarithms
    assert promised[Candidate(0.5, int8=True)]["size_bytes"] == pytest.approx(200)
    assert promised[Candidate(0.1)]["latency_ms"] == pytest.approx(2.0)  # no less than what was measured
    assert promised[Candidate(0.5)]["answer_ms"] == pytest.approx(4.0 + OVERHEAD_MS)


def test_networks_without_blocks_promise_what_they_cost_below_the_share_that_they_have_whole():
    without = [
        {"share": share, "blocks": blocks, "int8": int8, "latency_ms": ms / (2 if int8 else 1), "size_bytes": 200}
        for blocks, rows in ((3, ((0.6, 3.0), (0.15, 1.5))), (5, ((0.3, 1.0),)))
        for share, ms in rows
        for int8 in (False, True)
    ]
    found = interpolated([*NETWORKS, *without], [0.5, 0.25, 0.1], OVERHEAD_MS)
    assert {candidate: found[candidate] for candidate in promised_of(NETWORKS)} == promised_of(NETWORKS)
    assert {(c.share, c.blocks) for c in found if c.blocks} == {(0.5, 3), (0.25, 3), (0.1, 3), (0.25, 5), (0.1, 5)}
    for int8 in (False, True):
        assert found[Candidate(0.1, int8, blocks=3)]["latency_ms"] == pytest.approx(1.5 / (1 + int8))
        assert found[Candidate(0.1, int8, blocks=5)]["answer_ms"] == pytest.approx(1.0 / (1 + int8) + OVERHEAD_MS)
    assert counts_of([*NETWORKS, *without]) == [0, 3, 5]
    assert counts_of(NETWORKS) == [0]


def test_bytes_of_cuts_follow_what_cuts_were_measured_to_take():
    promised = promised_of(NETWORKS)
    sizes = {Candidate(): 999.0, Candidate(0.25): 40.0, Candidate(0.25, longer=True): 40.0, Candidate(0.5): 200.0}
    found = as_small(promised, sizes)
    assert found[Candidate()] == promised[Candidate()]
    assert found[Candidate(0.5, int8=True)]["size_bytes"] == pytest.approx(0.4 * 200)
    assert found[Candidate(0.5)]["latency_ms"] == promised[Candidate(0.5)]["latency_ms"]
    assert as_small(promised, {Candidate(): 999.0}) == promised


def test_the_whole_network_for_smaller_images_promises_what_it_was_measured_to_take_and_nothing_of_cuts():
    smaller = [{**each, "share": 0.694, "side": 80, "latency_ms": 5.0} for each in NETWORKS[:2]]
    found, before = promised_of([*NETWORKS, *smaller]), promised_of(NETWORKS)
    resized = [Candidate(0.7, int8, side=80, resized=True) for int8 in (False, True)]
    assert set(found) - set(before) == set(resized)
    assert {candidate: found[candidate] for candidate in before} == before
    assert found[resized[0]] == {"latency_ms": 5.0, "size_bytes": 400, "answer_ms": 5.0 + OVERHEAD_MS}
    assert set(as_they_are(smaller)) == set(resized)
    assert promised_ms(resized[0], found) == 5.0
    assert counts_of([*NETWORKS, *smaller]) == [0]


@pytest.fixture
def cuts(monkeypatch):
    """Of ResNet-20, which are not exported."""
    monkeypatch.setattr(cuts_module, "export_network", lambda network, size: None)
    monkeypatch.setattr(
        cuts_module,
        "_in_both",
        lambda network, size, costs: [({**costs, "int8": int8}, network) for int8 in (False, True)],
    )
    network = create_model("resnet20", num_classes=4).eval()
    preprocess = Preprocess(size=(32, 32))
    return Cuts(LoadedModel(network, ModelConfig(architecture="x", model_args={}, classes=None, preprocess=preprocess)))


def test_the_ends_are_the_whole_network_and_its_smallest_cuts_and_nothing_is_made_twice(cuts):
    """In float and in int8 each; what they promise is of their own shares, and not of those that are asked for."""
    ends, others = ([costs for costs, _ in networks] for networks in (cuts.ends(), cuts.others()))
    assert [round((each["side"] / 32) ** 2, 1) for each in (*ends, *others) if "side" in each] == [0.5, 0.5, 0.8, 0.8]
    ends, others = ([each for each in networks if "side" not in each] for networks in (ends, others))
    every = [(each["blocks"], each["share"], each["int8"]) for each in (*ends, *others)]
    assert len(set(every)) == len(every)
    assert {round(share, 1) for count, share, _ in every if not count} == {1.0, 0.4, 0.1}  # its widths end there
    blocks = 7  # of nine; the first of a stage has a projection instead of its input
    assert counts_of([*ends, *others]) == [0, 4, blocks]
    shares = sorted({share for _, share, _ in every})
    assert {each["share"] for each in ends} >= {1.0, shares[0]}
    assert [each["blocks"] for each in ends[::2]] == [0, 0, 4, blocks]
    found = as_they_are([{**each, "latency_ms": 4.0} for each in ends])
    assert found[Candidate(int8=True)]["latency_ms"] == 4.0
    assert {(c.share is None, c.blocks) for c in found} == {(True, 0), (False, 0), (False, 4), (False, blocks)}
    assert min(c.share for c in found if c.share is not None) == round(shares[0], 2)


def test_what_widths_cannot_reach_is_left_out(cuts, monkeypatch):
    cut_to = cuts_module._cut_to

    def wide(share, *given):
        if share < 0.1:
            raise SlimzooError("no such widths")
        return cut_to(share, *given)

    monkeypatch.setattr(cuts_module, "_cut_to", wide)
    ends, others = (
        [costs["share"] for costs, _ in networks if not costs["blocks"] and "side" not in costs]
        for networks in (cuts.ends(), cuts.others())
    )
    assert ends == [1.0, 1.0, pytest.approx(0.15, abs=0.03), pytest.approx(0.15, abs=0.03)]
    assert others == [pytest.approx(0.4, abs=0.05)] * 2


def test_one_network_that_a_neighbour_slows_down_does_not_speak_for_the_others(promised):
    measured = {Candidate(): 16.0, Candidate(0.5): 4.0, Candidate(0.25, longer=True): 2.0}
    for candidate, costs in in_step(promised, measured).items():
        assert costs == pytest.approx(promised[candidate])


def test_a_machine_that_has_become_slower_is_so_for_all_networks_and_for_them_alone(promised):
    slow = in_step(promised, {Candidate(): 12.0})
    for candidate, costs in promised.items():
        assert slow[candidate]["latency_ms"] == pytest.approx(1.5 * costs["latency_ms"])
        assert slow[candidate]["answer_ms"] - slow[candidate]["latency_ms"] == pytest.approx(OVERHEAD_MS)
        assert slow[candidate]["size_bytes"] == costs["size_bytes"]


def test_without_a_time_of_the_whole_model_promises_stay_as_they_are(promised):
    assert in_step(promised, {}) == promised
    untimed = interpolated([{**each, "latency_ms": None} for each in NETWORKS], [0.5])
    assert in_step(untimed, {Candidate(): 5.0}) == untimed
