"""What rows of bench_search.py come to: figures of rows written by hand."""

from __future__ import annotations

import pytest
from search_figures import AS_IT_IS, FIT, OPENVINO, ORT, OURS, TIMES, figures

KEY = {"task": "digits", "model": "resnet20"}
RIGHT = {100: "1" * 200, 99: "1" * 198 + "00", 98: "1" * 196 + "0000"}  # 200 test images, by percent


def method(name, pct, seed=0, runtime=ORT, seconds=60.0, **more):
    more = {"top1_pct": float(pct), "correct": RIGHT[pct], "runtime": runtime, "seconds": seconds, **more}
    return {**KEY, "seed": seed, "method": name, **more}


def times(speeds, seed=0):
    """speeds: {method: (in onnxruntime, in OpenVINO)}, times as fast as the fitted network in onnxruntime."""
    rows = {
        name: {
            runtime: {"ratio": ratio, "ratio_ci": ratio and [0.9 * ratio, 1.1 * ratio]}
            for runtime, ratio in zip((ORT, OPENVINO), pair, strict=True)
        }
        for name, pair in speeds.items()
    }
    return {**KEY, "seed": seed, "method": TIMES, "rows": rows, "seconds": 400.0}


def ours(pct=100, seed=0, trials=(), **more):
    return method(OURS, pct, seed, chosen="pruned-30-int8", trials=list(trials), **more)


SPEEDS = {FIT: (1.0, 1.5), OURS: (4.0, 6.0), "nncf": (2.0, 3.0), "tp": (5.0, 5.0), "quantize": (2.0, 3.0)}


def found(*rows, peers=("nncf", "tp"), by_hand=("quantize",)):
    return figures(rows, peers, by_hand)


def test_points_and_speeds_are_means_over_seeds():
    rows = []
    for seed, (pct, fast) in enumerate(((100, 2.0), (98, 8.0))):
        rows += [method(FIT, 100, seed), ours(pct, seed), times({**SPEEDS, OURS: (fast, 1.0)}, seed)]
    (cell,) = found(*rows)["cells"]
    assert cell["seeds"] == [0, 1]
    assert cell[OURS]["loses_points"] == pytest.approx(1.0)
    assert cell[OURS]["loses_ci_points"][0] < 1 < cell[OURS]["loses_ci_points"][1]
    assert cell[OURS]["times_as_fast"] == pytest.approx(4.0)  # the geometric mean
    assert cell["minutes"] == pytest.approx(2.0)


def test_a_cell_names_the_processors_that_it_was_timed_on():
    rows = []
    for seed, name in enumerate(("one, avx2", "one, avx512f", "one, avx2")):
        rows += [method(FIT, 100, seed), ours(100, seed), times(SPEEDS, seed) | {"processor": name}]
    (cell,) = found(*rows)["cells"]
    assert cell["processors"] == ["one, avx2", "one, avx512f"]


def test_the_best_peer_is_the_fastest_that_loses_little_enough():
    rows = [method(FIT, 100), ours(), method("nncf", 99, runtime=OPENVINO), method("tp", 98), times(SPEEDS)]
    (cell,) = found(*rows)["cells"]
    assert cell["best_peer"]["name"] == "nncf"
    assert cell["best_peer"]["ours_times_as_fast"] == pytest.approx(4 / 3)  # NNCF in OpenVINO, ours in onnxruntime
    assert cell["peers"]["tp"]["loses_points"] == pytest.approx(2.0)


def test_the_fitted_network_in_openvino_is_a_peer():
    (cell,) = found(method(FIT, 100), ours(), times(SPEEDS))["cells"]
    assert cell["best_peer"]["name"] == AS_IT_IS
    assert cell["best_peer"]["ours_times_as_fast"] == pytest.approx(4 / 1.5)


def test_a_runtime_that_ours_chose_counts_and_nncf_has_its_own_form():
    nncf = method("nncf", 100, runtime=OPENVINO, own_form_times_as_fast=1.2)
    (cell,) = found(method(FIT, 100), ours(runtime=OPENVINO), nncf, times(SPEEDS))["cells"]
    assert cell[OURS]["runtimes"] == [OPENVINO]
    assert cell[OURS]["times_as_fast"] == pytest.approx(6.0)
    assert cell["peers"]["nncf"]["times_as_fast"] == pytest.approx(3.6)
    slower = {**nncf, "own_form_times_as_fast": 0.9}
    (cell,) = found(method(FIT, 100), ours(), slower, times(SPEEDS))["cells"]
    assert cell["peers"]["nncf"]["times_as_fast"] == pytest.approx(3.0)


def test_by_hand_is_compared_where_it_is_as_fast():
    rows = [method(FIT, 100), ours(99), method("quantize", 100)]
    slow = found(*rows, times(SPEEDS))["cells"][0]["by_hand"]["quantize"]
    assert slow["seeds_as_fast"] == 0
    assert "ours_gains_points" not in slow
    fast = found(*rows, times({**SPEEDS, "quantize": (4.0, 1.0)}))
    assert fast["cells"][0]["by_hand"]["quantize"]["ours_gains_points"] == pytest.approx(-1.0)
    assert "digits, resnet20: quantize is as fast and 1.00 points better" in fast["missed"]


def test_promises_are_judged_over_all_candidates():
    trials = [{"promised_ms": 1.0 + off, "latency_ms": 1.0} for off in (0.0, 0.08, -0.2, 0.05, 0.3)]
    trials += [{"promised_ms": None, "latency_ms": 1.0}, {"promised_ms": 1.0, "latency_ms": None}]
    told = found(method(FIT, 100), ours(trials=trials), times(SPEEDS))
    assert told["promises"]["candidates"] == 5
    assert told["promises"]["off_median"] == pytest.approx(0.08)
    assert told["promises"]["off_worst_decile"] == pytest.approx(0.26)
    assert [said for said in told["missed"] if "promised" in said] == [
        "a tenth of the latencies are 26% and more from what was promised"
    ]


def test_bars_that_are_met_and_missed():
    good = [method(FIT, 100), ours(99), times(SPEEDS)]
    assert found(*good)["missed"] == []
    bad = [method(FIT, 100), ours(98, seconds=2000.0), method("tp", 100), times({**SPEEDS, OURS: (2.5, 1.0)})]
    assert found(*bad)["missed"] == [
        "digits, resnet20: 2.00 points are lost",
        "digits, resnet20: 2.50 times as fast as it was",
        "digits, resnet20: 0.50 times as fast as tp",
        "digits, resnet20: 34 minutes",
    ]


def test_what_was_not_measured_is_said_and_left_out():
    failed = {**KEY, "seed": 0, "method": "tp", "reason": "not measured: no module"}
    (cell,) = found(method(FIT, 100), ours(), failed, times({**SPEEDS, "nncf": (1.0, None)}))["cells"]
    assert cell["not_measured"] == ["tp: not measured: no module"]
    assert list(cell["peers"]) == [AS_IT_IS]
    nothing = {**KEY, "seed": 1, "method": OURS, "reason": "not measured: nothing meets the budget"}
    told = found(method(FIT, 100), ours(), times(SPEEDS), nothing)
    assert told["cells"][0]["seeds"] == [0]
    assert told["missed"] == ["digits, resnet20, seed 1: not measured: nothing meets the budget"]


def test_answers_are_not_in_the_result():
    assert all("correct" not in run for run in found(method(FIT, 100), ours(), times(SPEEDS))["runs"])
