"""Two processes against one, against themselves, and one of them dying."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer.training import distributed

SCRIPT = Path(__file__).with_name("several_processes.py")
SPEC = importlib.util.spec_from_file_location("several_processes", SCRIPT)
one_process = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(one_process)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def launch(scenario, place, *, launcher=TORCHRUN):
    """Start two processes; what they left, the exit code, and what was said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[3])}
    done = subprocess.run(
        [*launcher, SCRIPT, scenario, place], capture_output=True, text=True, timeout=300, env=environment
    )
    left = [json.loads(path.read_text()) for path in sorted(place.glob("process-*.json"))]
    return left, done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    left, code, said = launch("trains", tmp_path_factory.mktemp("two"))
    assert code == 0, said
    assert len(left) == 2
    return left


@pytest.mark.parametrize("name", one_process.PLAIN)
def test_two_processes_take_the_steps_of_one(two, name):
    one = one_process.numbers(one_process.train(one_process.PLAIN[name]))
    for process in two:
        found = process[name]
        for tensor, values in one["weights"].items():
            np.testing.assert_allclose(found["weights"][tensor], values, rtol=0, atol=1e-5, err_msg=tensor)
        for line, expected in zip(found["history"], one["history"], strict=True):
            assert line[1] == expected[1]  # no image is counted twice
            assert line == pytest.approx(expected, abs=1e-4)


def test_both_processes_end_with_the_same_bits(two):
    assert two[0] == two[1]


def test_a_second_run_has_the_same_bits(two):
    for process in two:
        assert process["again"] == process["moving statistics"]


def test_nan_in_one_process_sends_all_back(two):
    assert [process["poisoned"]["halvings"] for process in two] == [1, 1]


def test_a_signal_to_one_process_stops_all_after_the_same_step(two):
    assert [process["interrupted"] for process in two] == [143, 143]
    assert two[0]["resumed"]["weights"] == two[0]["plain"]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_killed_process_ends_the_job_and_it_resumes(tmp_path, launcher):
    start = TORCHRUN
    if launcher == "accelerate":
        pytest.importorskip("accelerate")
        # --multi_gpu is its word for several processes of one machine, with or without GPUs
        start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
        start += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    whole, dying = tmp_path / "whole", tmp_path / "dying"
    for place in (whole, dying):
        place.mkdir()
    (whole / "died").touch()
    expected, code, said = launch("dies", whole, launcher=start)
    assert code == 0, said
    left, code, said = launch("dies", dying, launcher=start)
    seconds = time.time() - (dying / "died").stat().st_mtime
    assert code != 0
    assert left == []
    assert seconds < 30, said
    left, code, said = launch("dies", dying, launcher=start)
    assert code == 0, said
    assert left[0] == expected[0]


# alone


def test_alone_everything_is_the_identity(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.processes():
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        assert distributed.share(7) == slice(0, 7)
        assert (distributed.total(3), distributed.largest(-2)) == (3, -2)
        assert distributed.from_main(lambda: "all") == "all"
        distributed.barrier()
        with distributed.main_first():
            pass
        parameter = torch.nn.Parameter(torch.ones(2))
        distributed.sum_gradients_([parameter])
        assert parameter.grad is None


@pytest.mark.parametrize(("count", "processes"), [(0, 2), (1, 3), (7, 3), (32, 5), (9, 9)])
def test_parts_are_contiguous_and_nearly_equal(monkeypatch, count, processes):
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(list(range(count))[distributed.share(count)])
    assert sum(parts, []) == list(range(count))  # noqa: RUF017
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
