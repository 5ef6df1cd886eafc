"""A search that meets what it did not expect: other latencies in the end, what cannot be timed, steps that fail."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from compress.plan import searching, side_by_side, step, timing
from compress.plan.pipeline import Kept, Pipeline
from compress.plan.settings import Budgets
from compress.plan.step import compress
from compress.plan.trial import Candidate, Trial, best_of
from transfer.evaluation.statistics import PairedDrop
from zoo.errors import DataError, GateError, SlimzooError, UsageError
from zoo.lineage import current_metrics

pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def whole(done):
    """MACs of the fitted network."""
    found, _ = done
    return next(trial["macs"] for trial in found.record["variants"] if trial["name"] == "fit")


@pytest.fixture
def clock(monkeypatch, whole, tmp_path):
    """Ten milliseconds for the whole, and as much less as it has fewer MACs, until in the end it is `slower`; nothing
    was measured before."""
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path / "cache"))

    class Clock:
        slower = 1.0
        disturbed = False  # what is promised

    def alone(self, kept):
        macs = current_metrics(searching.read_config(kept.path).lineage)["macs"]
        return {"latencies": {"onnxruntime": 10 * macs / whole}, "memories": {"onnxruntime": 1e8}, "disturbed": False}

    def together(trials, search, work):
        row = {"runtime": "onnxruntime", "disturbed": False, "peak_mb": 100.0}
        return {t.name: [{**row, "median_ms": Clock.slower * 10 * t.metrics["macs"] / whole}] for t in trials}

    def promised(networks, *how, **more):
        return [
            {**costs, "latency_ms": 10 * costs["share"], "memory_bytes": 1e8, "disturbed": Clock.disturbed}
            for costs, _ in networks
        ]

    monkeypatch.setattr(searching.Search, "_time", alone)
    monkeypatch.setattr(side_by_side, "_measured", together)
    monkeypatch.setattr(step, "measured", promised)
    return Clock


def test_what_takes_longer_side_by_side_than_alone_is_not_the_end_of_the_search(dense, photos, tmp_path, clock):
    clock.slower = 1.2
    found = compress(dense, data=photos, max_drop=100, latency="6.5ms", seed=31, out=tmp_path / "out")
    assert found.chosen == "pruned-40"
    at = {trial["name"]: trial for trial in found.record["variants"]}
    assert at["pruned-60"]["latency_ms"] > 6.5 > at["pruned-60"]["latency_ms"] / 1.2  # for which it stopped at first
    assert at["pruned-40"]["promised_ms"] == pytest.approx(1.2 * 4, rel=0.06)


def test_a_search_that_nothing_satisfies_side_by_side_ends(dense, photos, tmp_path, clock):
    clock.slower = 10.0
    found = compress(dense, data=photos, max_drop=100, latency="6.5ms", seed=31, out=tmp_path / "out")
    assert (found.met, found.exit_code) == (False, 4)
    assert {trial["name"] for trial in found.record["variants"]} >= {"pruned-60", "pruned-40"}
    assert re.match(
        r"No model meets the budget; the nearest is `pruned-40\S*`, .* takes .* the latency", found.lines()[0]
    )
    report = json.loads((found.out / "report.json").read_text(encoding="utf-8"))
    assert report["budgets"] == {"max_drop": 100, "latency_ms": 6.5}


def test_what_was_promised_on_a_busy_machine_refuses_nothing(dense, photos, tmp_path, clock):
    """All promises are over the budget, and what is measured in the end is not."""
    clock.disturbed, clock.slower = True, 0.1
    found = compress(dense, data=photos, max_drop=100, latency="0.9ms", seed=33, out=tmp_path / "out")
    assert any("other work disturbed the machine while it timed what cuts would save" in line for line in found.said)
    clock.disturbed = False
    with pytest.raises(GateError, match="no network of this kind meets the budget"):
        compress(dense, data=photos, max_drop=100, latency="0.9ms", seed=34, out=tmp_path / "no")


def test_what_cannot_be_timed_does_not_meet_a_latency_and_holds_nothing_up(dense, photos, tmp_path, clock, monkeypatch):
    nothing = {"latencies": {}, "memories": {}, "disturbed": False}
    monkeypatch.setattr(searching.Search, "_time", lambda self, kept: nothing)
    monkeypatch.setattr(side_by_side, "_measured", lambda *given: {})
    found = compress(dense, data=photos, max_drop=100, latency="6.6ms", seed=32, out=tmp_path / "out")
    assert not found.met
    assert {trial["latency_ms"] for trial in found.record["variants"]} == {None}
    assert "its latency is not known" in found.lines()[0]
    assert not any("inf" in line for line in found.lines())


def test_what_would_be_chosen_recovers_longer_and_what_was_timed_before_does_not_count(
    dense, photos, tmp_path, clock, monkeypatch
):
    """All is timed again with it, on a machine that is half as fast by then, and for the last time."""
    monkeypatch.setattr("compress.plan.trial.expected_loss", lambda drop, nats: 1.0)
    monkeypatch.setattr("compress.plan.trial.LONGER", 1)  # the same step as before
    monkeypatch.setattr(searching, "recovered", lambda lineage: True)
    together, times = side_by_side._measured, []

    def slower_each_time(trials, search, work):
        times.append([each.name for each in trials])
        clock.slower = 2.0 ** len(times)
        return together(trials[: 3 if len(times) == 2 else None], search, work)  # others fall out

    monkeypatch.setattr(side_by_side, "_measured", slower_each_time)
    found = compress(dense, data=photos, max_drop=100, seed=36, out=tmp_path / "out")
    assert [sum("longer" in name for name in names) for names in times] == [0, 1]
    assert found.chosen.startswith("pruned-40")
    fit = next(each for each in found.record["variants"] if each["name"] == "fit")
    timed = {each["name"]: each for each in found.record["variants"] if each["latency_ms"] is not None}
    assert set(timed) == set(times[1][:3])
    for each in timed.values():
        assert each["latency_ms"] == pytest.approx(40 * each["macs"] / fit["macs"])


def failing(monkeypatch, error):
    done = Pipeline.done

    def fails(self, step, source=None):
        if step.verb == "prune" and step.settings.macs == 0.6:
            raise error
        return done(self, step, source)

    monkeypatch.setattr(Pipeline, "done", fails)


def test_a_cut_that_does_not_work_is_a_candidate_less(dense, photos, tmp_path, monkeypatch):
    failing(monkeypatch, SlimzooError("less effect than counted"))
    found = compress(dense, data=photos, max_drop=100, shares=[0.6, 0.4], seed=33, out=tmp_path / "out")
    reasons = {trial["name"]: trial.get("reason") for trial in found.record["variants"]}
    assert reasons["pruned-60"] == reasons["pruned-60-int8"] == "less effect than counted"
    assert reasons["pruned-40"] is None
    assert found.met


@pytest.mark.parametrize("kind", [DataError("an image is gone"), SlimzooError("the disk is full")])
def test_what_no_candidate_is_the_reason_of_ends_the_search(kind, dense, photos, tmp_path, monkeypatch):
    if not isinstance(kind, DataError):
        kind.__cause__ = OSError(28, "No space left on device")
    failing(monkeypatch, kind)
    with pytest.raises(type(kind), match=str(kind)):
        compress(dense, data=photos, max_drop=100, shares=[0.6, 0.4], seed=34, out=tmp_path / "out")


def test_a_runtime_that_is_not_installed_is_refused_at_once(dense, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(timing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="openvino is not installed: pip install"):
        compress(dense, data=photos, runtime=["openvino"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_may_have_a_budget_of_answers(dense, pictures, tmp_path):
    found = compress(dense, data=pictures, plan="accurate", answer="1s", max_drop=100, out=tmp_path / "out")
    assert found.met
    for trial in found.record["variants"]:
        assert 0 < trial["latency_ms"] < trial["answer_ms"] < 1000


def test_the_sampler_draws_nothing_where_there_is_no_time_or_that_is_asked(dense, photos, tmp_path):
    given = {"data": photos, "max_drop": 100, "shares": [0.4], "seed": 35}
    compress(dense, **given, out=tmp_path / "before")
    for more in ({"finish": True}, {"time_s": 2.0}):
        found = compress(dense, **given, **more, trials=3, out=tmp_path / next(iter(more)))
        assert {t["name"] for t in found.record["variants"]} == {"fit", "int8", "pruned-40", "pruned-40-int8"}
        assert any("more of Optuna's sampler" in line for line in found.said)


def test_what_would_be_chosen_is_among_those_that_are_timed_side_by_side(monkeypatch):
    """However many meet the budget: the one that is compressed least is the slowest of them."""
    drop = PairedDrop(0.0, (0.0, 0.0), 1.0, 100, 0)

    def trial(share):
        metrics, kept = {"macs": int(1e6 * share), "size_bytes": 1000}, Kept(Path("x"), "x", 1.0, False)
        name = "fit" if share == 1 else f"pruned-{100 * share:g}"
        return Trial(name, Candidate(None if share == 1 else share), None, kept, metrics, drop, latencies={"o": share})

    there, budgets = [trial(share / 20) for share in range(20, 4, -1)], Budgets(1.0, latency_ms=0.7)
    search = SimpleNamespace(budgets=budgets, promised={})
    named = {each.name for each in side_by_side._finalists(there, search)}
    assert best_of(there, budgets).name == "pruned-70"
    assert {"fit", "pruned-70"} < named
    assert len(named) == side_by_side.MOST_TIMED


@pytest.mark.parametrize("disturbed", [True, False])
def test_one_runtime_that_was_disturbed_is_not_taken_for_slow(disturbed):
    rows = [{"runtime": "onnxruntime", "median_ms": 1.0, "disturbed": disturbed}]
    rows += [{"runtime": "openvino", "median_ms": 2.0, "disturbed": False}]
    search = SimpleNamespace(with_costs=lambda trial, here, memories: replace(trial, latencies=here))
    before = Trial("x", latencies={"onnxruntime": 1.1, "openvino": 2.1})
    found = side_by_side._as_measured(before, [{**row, "peak_mb": 1.0} for row in rows], search)
    assert found.latencies["onnxruntime"] == (1.1 if disturbed else 1.0)
