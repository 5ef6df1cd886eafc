"""A batch that does not fit is said, with one that does."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from compress.benchmark import worker
from compress.benchmark.fitting_batch import is_out_of_memory, largest_batch
from compress.benchmark.process import ROOT
from zoo.errors import SlimzooError


@pytest.mark.parametrize("room", [0, 1, 2, 37, 511])
def test_the_largest_that_fits_is_found(room):
    tried = []

    def runs(batch):
        tried.append(batch)
        if batch > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert largest_batch(runs, 512) == room
    assert len(tried) <= 9, "by halving"
    assert largest_batch(runs, 512, within_s=0.0) == 0


def test_what_fails_for_another_reason_is_not_called_too_large():
    def runs(batch):
        raise ValueError("only batches of 8")

    with pytest.raises(ValueError, match="only batches of 8"):
        largest_batch(runs, 64)


def test_allocators_are_understood():
    for ask in (lambda: torch.empty(10**15), lambda: np.empty(10**15)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            ask()
        assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


class Crowded:
    """A runtime whose device takes 37 images."""

    device, precision, input_shape = "a GPU", "fp32", (1, 4, 4)

    def run(self, batch):
        if len(batch) > 37:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return batch.sum(axis=(1, 2, 3), keepdims=True)[:, :, 0, 0]


def test_a_row_says_which_batch_does(monkeypatch):
    monkeypatch.setitem(worker.RUNTIMES, "crowded", lambda path, threads, precision: Crowded())
    monkeypatch.setattr(worker, "_pin", lambda threads: None)
    given = {"runtime": "crowded", "path": "x", "threads": 1}
    with pytest.raises(SlimzooError, match="a batch of 512 does not fit into the memory of a GPU; 37 does"):
        worker.Worker().open(**given, batch=512)
    assert worker.Worker().open(**given, batch=32)["device"] == "a GPU"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_process_that_asks_for_more_than_there_is_fails_and_is_not_killed():
    code = (
        "import numpy, psutil\n"
        "from compress.benchmark.fitting_batch import bound_memory\n"
        "bound_memory()\n"
        "kept = numpy.ones(10**6)\n"
        "try:\n"
        "    numpy.ones(psutil.virtual_memory().available // 8 + 10**8)\n"
        "except MemoryError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "refused"), done.stderr


@pytest.mark.parametrize("batch", [1, 4, 300])
def test_batches_differ_and_are_whole(batch):
    found = worker._batches((3, 8, 8), batch, None)
    assert [array.shape for array in found] == [(batch, 3, 8, 8)] * worker.BATCHES
    assert all(array.dtype == np.float32 for array in found)
    if batch < 100:
        assert len({array.tobytes() for array in found}) == worker.BATCHES
