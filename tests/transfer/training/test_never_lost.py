"""A training run is killed, its disk is full, its numbers become infinite: benchmarks/bench_never_lost.py, a sample.

It is a process of its own because it forks one for every run to be killed. The whole suites are slow tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def suites(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = importlib.util.find_spec("bench_never_lost").origin
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sample():
    return suites("SAMPLE")


def test_killed_and_resumed_runs_end_with_the_same_bits(sample):
    found = sample["kills"]
    assert found["differ"] == []
    assert found["identical"] == found["runs"] >= 2
    assert found["kills"] >= 4


def test_a_kill_or_a_power_cut_at_any_call_leaves_a_checkpoint(sample):
    found = sample["kill_points"]
    assert found["unreadable"] == 0
    assert 0 < found["already_the_new_one"] < found["kill_points"]
    assert found["kill_points"] >= 40


def test_a_full_disk_leaves_the_checkpoint_before(sample):
    found = sample["full_disk"]
    assert found["loads"] == found["writes"] == found["errors_of_one_line"] >= 15
    assert found["loads_under_limits"] == found["file_size_limits"] > 0


def test_what_is_not_finite_is_never_saved(sample):
    found = sample["nans"]
    assert found["saved"] == 0
    assert found["finite_in_the_end"] == found["went_back"] == found["injected"] >= 4
    assert all("images/" in line and "halved 2 times" in line and "\n" not in line for line in found["stops"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suite", ["kills", "command_kills", "kill_points", "full_disk", "nans"])
def test_whole(suite):
    found = suites("WHOLE", suite)
    assert found["failures"] == []
    least = {"kills": ("kills", 200), "command_kills": ("kills", 5), "kill_points": ("kill_points", 500)}
    least |= {"full_disk": ("writes", 100), "nans": ("injected", 20)}
    name, number = least[suite]
    assert found[suite][name] >= number
