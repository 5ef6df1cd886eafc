"""A busy machine: it is noticed, measured again, and what cannot be said is not said."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from compress.benchmark import diagnosis, disturbance, measuring
from compress.benchmark.diagnosis import Throttling, diagnoses
from compress.benchmark.disturbance import Look, look, taken
from compress.benchmark.harness import bench
from compress.benchmark.measuring import AT_MOST
from compress.pruning import latency
from compress.report.report import build_report
from zoo.errors import SlimzooError

LOOP = "print(flush=True)\nwhile True: pass"


class Told:
    """A worker that measures nothing: what it answers is told beforehand."""

    ms = {"slow": 4.0, "fast": 2.0}  # noqa: RUF012
    taken: list[float] = []  # noqa: RUF012  # of each measurement of anyone, the last for ever
    launched = 0
    wandering = 0  # so many first processes are each as fast as chance has it
    chance = None

    def __init__(self, threads):
        kind = type(self)
        kind.launched += 1
        self.times = float(np.exp(0.1 * kind.chance.standard_normal())) if kind.launched <= kind.wandering else 1.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def send(self, do, **request):
        self.name = request["path"]

    def answer(self, do):
        return self.ask(do)

    def ask(self, do, **request):
        if do == "open":
            return {"device": "cpu", "precision": "fp32", "cpus": [0], "load_ms": 1.0, "first_ms": 1.0}
        if do == "warm_up":
            return {"run_ms": 1.0}
        share = self.taken.pop(0) if len(self.taken) > 1 else self.taken[0]
        ms = self.times * self.ms[self.name] * (1 + 9 * share * (self.name == "slow"))
        said = {"ms": [ms] * 100, "taken": share, "joules": share + 0.5, "peak_bytes": 10**6}
        return {**said, "device_ms": None, "device_peak_bytes": None}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Gives the result of a benchmark of `slow` and `fast` during which other work took those shares."""

    def run(shares, wandering=0, **given):
        now = {"launched": 0, "wandering": wandering, "chance": np.random.default_rng(0)}
        kind = type("Told", (Told,), {"taken": list(shares), **now})
        monkeypatch.setattr(measuring, "WorkerProcess", kind)
        monkeypatch.setattr(
            "compress.benchmark.harness.take_out", lambda row, folder: setattr(row, "taken_out", row.model)
        )
        for name in ("slow", "fast"):
            (tmp_path / name).write_bytes(b"")
        result = bench([tmp_path / "slow", tmp_path / "fast"], runtimes=["onnxruntime"], threads=1, **given)
        return result, kind

    return run


def test_of_what_was_taken_threads_that_waited_and_the_hypervisor():
    before = Look(10.0, 5.0, {"1": 0.5, "2": 0.1}, taken_s=2.0)
    after = Look(11.0, 6.5, {"1": 0.7, "2": 0.2, "3": 0.1}, taken_s=2.2)
    assert taken(before, after, 2) == pytest.approx((0.2 + 0.1 + 0.1 + 0.2) / 2)


def test_where_waiting_is_not_counted_what_ran_on_the_processors_is():
    before, after = Look(10.0, 5.0, taken_s=7.0), Look(11.0, 6.0, taken_s=8.5)
    assert taken(before, after, 2) == pytest.approx((1.5 - 1.0) / 2)
    assert taken(before, Look(11.0, 6.0, taken_s=7.9), 2) == 0  # the counters' ticks are coarser than the time


@pytest.mark.parametrize("counted", [True, False])
def test_busy_loops_beside_it_are_seen(counted, monkeypatch):
    import psutil

    if not counted:
        monkeypatch.setattr(disturbance, "_waited", dict)
    elif not disturbance._waited():
        pytest.skip("this system does not count how long threads wait")
    if not hasattr(psutil.Process(), "cpu_affinity"):
        pytest.skip("processes cannot be kept on a processor here")
    process = psutil.Process()
    everywhere = process.cpu_affinity()
    loops = [subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for loop in loops:
            loop.stdout.readline()
            psutil.Process(loop.pid).cpu_affinity(everywhere[:1])
        process.cpu_affinity(everywhere[:1])
        before, end = look(everywhere[:1]), time.monotonic() + 0.6
        while time.monotonic() < end:
            pass
        after = look(everywhere[:1])
    finally:
        process.cpu_affinity(everywhere)
        for loop in loops:
            loop.kill()
            loop.communicate()
    assert 0.4 <= taken(before, after, 1) <= 1
    assert after.switches > before.switches


def test_disturbed_rounds_are_measured_again(measured):
    """Nine measurements, three rounds of slow, fast and slow's twin, are disturbed; then the machine is quiet."""
    result, told = measured([0.5] * 9 + [0.0], rounds=16, launches=2)
    slow, fast = result["rows"]
    assert fast["ratio"] == pytest.approx(2.0)
    assert (slow["median_ms"], slow["samples"], slow["disturbed"]) == (4.0, 1600, False)
    assert len(fast["rounds_ms"]) == 19
    assert result["disturbed_share"] == pytest.approx(9 / (3 * 19), abs=1e-4)
    assert fast["launches"] == [0] * 11 + [1] * 8
    assert fast["joules_per_image"] == pytest.approx(0.5 / 100)  # of undisturbed rounds, 100 runs each
    assert told.launched == 6
    assert result["diagnoses"][0].startswith("a busy neighbour: 16% of the measurements were disturbed")


@pytest.mark.parametrize(
    ("wandering", "launches", "measured_launches"),
    [
        (0, 8, {8}),
        (10**6, 4, {4}),  # of which nothing can be told
        (10**6, 8, {24}),
        (3 * 8, 8, {16, 24}),  # until it has been steady for long enough
    ],
)
def test_while_two_copies_of_one_model_differ_more_is_measured(measured, wandering, launches, measured_launches):
    result, told = measured([0.0], wandering=wandering, rounds=16, launches=launches)
    slow, fast = result["rows"]
    assert len(set(slow["launches"])) in measured_launches
    assert slow["launches"] == fast["launches"]
    assert told.launched == 3 * len(set(slow["launches"]))
    assert len(slow["rounds_ms"]) == 16 // launches * len(set(slow["launches"]))
    assert fast["ratio"] == pytest.approx(2.0, rel=0.15)


def test_more_is_not_measured_where_it_would_take_too_long(measured, monkeypatch):
    monkeypatch.setattr(measuring, "AT_MOST_S", 0.0)
    result, _ = measured([0.0], wandering=10**6, rounds=16, launches=8)
    assert len(set(result["rows"][0]["launches"])) == 8


def test_a_machine_that_stays_busy_is_said_and_nothing_is_stated(measured):
    result, _ = measured([0.0, 0.0, 0.0, 0.6, 0.0, 0.0, 0.3, 0.6, 0.6, 0.5], rounds=16, launches=4)
    slow, fast = result["rows"]
    assert len(slow["rounds_ms"]) == AT_MOST * 16
    assert (fast["ratio"], fast["ratio_ci"], fast["verdict"]) == (None, None, "too busy to say")
    lo, hi = fast["ratio_range"]
    assert 2 <= lo < hi
    assert result["noise"] is None
    text = str(result)
    assert "too busy to say" in text
    assert "reference, disturbed" in text
    assert "A busy neighbour: 97% of the measurements were disturbed, in which other work took 50%" in text
    assert json.loads(json.dumps(result)) == result


def test_a_machine_that_is_never_quiet_is_not_waited_for(measured):
    result, _ = measured([0.5], rounds=16, launches=8)
    assert len(result["rows"][0]["rounds_ms"]) == 3 * AT_MOST * 2  # three of the eight launches, and sixteen are over


def test_nothing_is_cut_by_the_time_of_a_busy_machine(measured, monkeypatch):
    result, _ = measured([0.5], rounds=7)
    monkeypatch.setattr(latency, "bench", lambda *args, **given: result)

    class Alike:
        def __init__(self, *args): ...

        def export(self, model):
            return model

    class Network:
        def SerializeToString(self):
            return b""

    monkeypatch.setattr(latency, "Alike", Alike)
    with pytest.raises(SlimzooError, match=r"^this machine is too busy to cut by its time: a busy neighbour: .*macs$"):
        latency.measured_ms([Network(), Network()], (3, 8, 8))


def test_report_of_a_busy_machine_chooses_by_size(measured, tmp_path):
    right = {"top1": 0.75, "n": 4, "correct": "1110"}
    for name, size_bytes, verbs in (
        ("slow", 10, ["fit"]),
        ("fast", 30, ["fit", "prune"]),
        ("small", 5, ["fit", "quantize"]),
    ):
        lineage = [{"verb": verb, "metrics": {"after": {"val": right, "size_bytes": size_bytes}}} for verb in verbs]
        (tmp_path / "out" / name).mkdir(parents=True)
        ours = {"format": 1, "primary": "model.safetensors", "preprocess": {}, "surgery": [], "lineage": lineage}
        (tmp_path / "out" / name / "config.json").write_text(json.dumps({"architecture": "x", "slimzoo": ours}))
    result, _ = measured([0.5], rounds=7)
    slow, fast = result["rows"]
    (tmp_path / "out/bench.json").write_text(json.dumps(result | {"rows": [slow, fast, fast | {"model": "small"}]}))
    report = build_report(tmp_path / "out")
    assert report.chosen == "small"
    assert "too busy to say: 100% of the rounds were disturbed" in report.verdict
    assert report.verdict.endswith("the machine was too busy to choose by time.")
    assert "A busy neighbour: 100%" in report.markdown.read_text()


def test_contention_and_an_unsteady_clock_are_named():
    calm = np.linspace(1.0, 1.1, 16).tolist()
    assert diagnoses([[0.0] * 16], calm, 2, 2) == []
    assert diagnoses([[0.5] * 16], calm, 4, 2) == ["thread contention: 4 threads on 2 processors; take --threads 2"]
    unsteady = np.linspace(1.0, 1.5, 16).tolist()
    (said,) = diagnoses([[0.0] * 16], unsteady, 1, 2)
    assert said == "an unsteady clock: undisturbed rounds of one model took 1.05 to 1.45 ms"
    (said,) = diagnoses([[0.0] * 16], unsteady, 2, 2)
    assert said.startswith("an unsteady clock, or threads that wait for each other: undisturbed rounds of one model")
    assert "--threads 1" in said


def test_fewer_threads_are_named_where_they_leave_room():
    calm = np.linspace(1.0, 1.1, 16).tolist()
    (said,) = diagnoses([[0.4] * 16], calm, 2, 2)
    assert said.endswith("took 40% of the processors' time; --threads 1 would leave it room")
    for shares, threads in (([0.9] * 16, 2), ([0.4] * 16, 1), ([0.4] * 4 + [0.0] * 12, 2)):
        assert "room" not in diagnoses([shares], calm, threads, 2)[0]


def test_throttling_is_named(monkeypatch):
    counts = iter([(1.0, 2), (1.5, 5)])
    monkeypatch.setattr(diagnosis, "_throttled", lambda: next(counts))
    quota, heat = Throttling().said()
    assert "stopped its threads for 0.50 s" in quota
    assert "slowed itself down 3 times" in heat
