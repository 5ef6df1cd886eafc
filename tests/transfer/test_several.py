"""`fit` by two processes: the same arguments, one directory, and what happens when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from zoo.files.model_directory import read_config

ROOT = Path(__file__).parents[2]
LENET = ["digits", "--model", "lenet5", "--method", "scratch", "--val", "0"]


def torchrun(tmp_path, *arguments, fit=LENET):
    environment = {**os.environ, "SLIMZOO_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*launcher, "-m", "transfer", "fit", *fit, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_one_directory_and_one_document(tmp_path):
    process = torchrun(tmp_path, "--epochs", 1, "--out", tmp_path / "out", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["metrics"]["after"]["test"]["n"] == 359
    (record,) = read_config(tmp_path / "out").lineage
    assert record["metrics"] == document["metrics"]
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.slow
def test_two_processes_plan_auto_by_one_clock(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "noise.npz", images=rng.integers(0, 256, (60, 32, 32, 3), np.uint8), labels=np.arange(60) % 2)
    words = [str(tmp_path / "noise.npz"), "--size", "32", "--time", "60s"]
    process = torchrun(tmp_path, "--out", tmp_path / "out", "--json", fit=words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    methods = [row["method"] for row in json.loads(out)["notes"]["auto"]["methods"]]
    assert methods == ["prototype", "probe", "finetune"]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_and_the_run_is_resumed(tmp_path):
    process = torchrun(tmp_path, "--epochs", 400, "--out", tmp_path / "out")
    checkpoints = tmp_path / "out.partial" / "checkpoints"
    while not any(checkpoints.glob("step-*/state.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(children.split()[-1]), signal.SIGKILL)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - began < 30
    assert any(checkpoints.glob("step-*/state.json")), "there is something to resume from"
