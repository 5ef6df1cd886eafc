"""Every runtime gives the same logits; what is not there says what to install."""

from __future__ import annotations

import contextlib
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from compress.benchmark.clock import CudaClock
from compress.benchmark.diagnosis import launch_bound
from compress.benchmark.harness import bench
from compress.benchmark.runtimes import PROVIDERS, RUNTIMES, Recorded
from compress.cli import app
from compress.deployment.export import export
from transfer.fitting.step import fit
from zoo.errors import SlimzooError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "dense"
    fit("digits", model="lenet5_caffe", method="scratch", epochs=1, out=out)
    export(out)
    return out


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch-compile"])
def test_it_says_what_torch_says(directory, name):
    if name == "openvino":
        pytest.importorskip("openvino")
    reference, runtime = RUNTIMES["torch"](directory, threads=1), RUNTIMES[name](directory, threads=1)
    assert runtime.name == name
    assert runtime.input_shape == reference.input_shape
    assert runtime.precision == "fp32"
    for batch in (1, 5):
        images = np.random.default_rng(batch).normal(size=(batch, *runtime.input_shape)).astype(np.float32)
        expected = reference.run(images)
        np.testing.assert_allclose(runtime.run(images), expected, atol=1e-4 * expected.std())


def test_the_network_alone_is_timed_apart_from_what_goes_to_it_and_comes_back(directory):
    runtime = RUNTIMES["torch"](directory, threads=1)
    assert runtime.device_ms is None
    batch = np.zeros((8, *runtime.input_shape), dtype=np.float32)
    runtime.run(batch)
    began = time.perf_counter()
    runtime.run(batch)
    assert 0 < runtime.device_ms <= 1000 * (time.perf_counter() - began)
    assert runtime.device_peak_bytes() is None, "a CPU has no memory of its own"
    torch_row, onnx_row = bench(
        [directory], runtimes=["torch", "onnxruntime"], threads=1, rounds=2, seconds_per_round=0.02
    )["rows"]
    assert torch_row["device_ms"] + torch_row["transfer_ms"] == pytest.approx(torch_row["median_ms"], rel=1e-6)
    assert (onnx_row["device_ms"], onnx_row["transfer_ms"], onnx_row["device_peak_mb"]) == (None, None, None)


class Cuda:
    """As much of torch.cuda as a recording takes: what runs in `graph` is run again by `replay`, into the same memory.

    Attributes:
        told: what was called, in turn.
    """

    def __init__(self):
        self.told, self._recording = [], None

    def Stream(self):
        return SimpleNamespace(wait_stream=lambda other: self.told.append("wait"))

    def current_stream(self):
        return self.Stream()

    @contextlib.contextmanager
    def stream(self, stream):
        self.told.append("aside")
        yield
        self.told.append("back")

    def CUDAGraph(self):
        return SimpleNamespace(again=None, replay=None)

    @contextlib.contextmanager
    def graph(self, graph):
        self.told.append("record")
        self._recording = graph
        yield
        self._recording = None

    def network(self, x):
        self.told.append("run")
        output = x * 2 + 1
        if self._recording is not None:
            self._recording.replay = lambda: (self.told.append("replay"), output.copy_(x * 2 + 1))
        return output


def test_a_recorded_network_answers_what_it_is_shown_and_not_what_it_was_recorded_with():
    cuda = Cuda()
    recorded = Recorded(cuda.network, cuda)
    for x in (torch.ones(2, 3), torch.full((2, 3), 5.0), torch.zeros(2, 3)):
        assert torch.equal(recorded(x), x * 2 + 1)
    assert cuda.told.count("record") == 1
    assert cuda.told.index("record") > cuda.told.index("back"), "allocations are made before"
    assert cuda.told[: cuda.told.index("record")].count("run") == 3
    assert cuda.told.count("replay") == 3
    assert torch.equal(recorded(torch.ones(7, 3)), torch.full((7, 3), 3.0)), "another shape is recorded anew"
    assert cuda.told.count("record") == 2


def test_a_gpu_is_timed_by_its_own_events():
    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            self.at, self.waited = None, False

        def record(self):
            self.at = next(times)

        def synchronize(self):
            self.waited = True

        def elapsed_time(self, other):
            assert other.waited, "until then it is not known"
            return other.at - self.at

    times = iter([3.0, 10.5])
    clock = CudaClock(SimpleNamespace(Event=Event))
    with clock:
        pass
    assert clock.ms() == 7.5


def test_a_network_that_waits_for_its_calls_is_told():
    def row(runtime, device_ms, precision="fp16"):
        return {"model": "m", "runtime": runtime, "precision": precision, "batch": 1, "device_ms": device_ms}

    (said,) = launch_bound([row("torch-cuda", 2.0), row("torch-cuda-graph", 0.8), row("onnxruntime", None)])
    assert "m in fp16 at batch 1 keeps the GPU for 2 ms told call by call, for 0.8 ms told at once" in said
    assert launch_bound([row("torch-cuda", 1.0), row("torch-cuda-graph", 0.9)]) == []
    assert launch_bound([row("torch-cuda", 2.0, "fp32"), row("torch-cuda-graph", 0.8)]) == []


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "onnxruntime"])
def test_a_provider_that_is_not_there_is_told(directory, name):
    import onnxruntime

    if PROVIDERS[name][0] in onnxruntime.get_available_providers():
        pytest.skip(f"{PROVIDERS[name][0]} is here")
    rows = bench([directory], runtimes=["onnxruntime", name], threads=1, rounds=3, seconds_per_round=0.02)["rows"]
    assert rows[0]["reason"] is None
    assert "pip install onnxruntime-gpu" in rows[1]["reason"]
    assert rows[1]["median_ms"] is None


def test_openvino_that_is_not_installed_is_told(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SlimzooError, match=r"pip install 'slimzoo\[openvino\]'"):
        RUNTIMES["openvino"](directory)


def test_an_unknown_runtime_is_answered_with_a_near_one(directory):
    done = CliRunner().invoke(app, ["bench", str(directory), "--runtime", "openvno"])
    assert "did you mean 'openvino'" in str(done.exception)
