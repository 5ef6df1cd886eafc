"""Two tiny networks, one much slower than the other: who is said to be faster, and what happens when a worker fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compress.benchmark import machine, measuring
from compress.benchmark import rows as benchmark_rows
from compress.benchmark import worker as benchmark_worker
from compress.benchmark.harness import bench
from compress.benchmark.process import NotMeasuredError, WorkerProcess
from compress.benchmark.rows import names_of, rows_of
from compress.benchmark.runtimes import RUNTIMES, precision_of
from compress.benchmark.table import format_rows
from compress.cli import app
from compress.report import statistics
from zoo.console import run
from zoo.errors import SlimzooError, UsageError
from zoo.files.manifest import write_manifest

SIZE = 32
FIELDS = "model runtime device precision batch threads median_ms p90_ms p99_ms images_per_s peak_mb size_bytes reason"
QUICK = {"threads": 1, "rounds": 6, "launches": 2, "seconds_per_round": 0.02}


@pytest.fixture(scope="module", autouse=True)
def calm():
    """Other tests run beside these: what that does to a measurement is told by test_disturbance.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "DISTURBED", 1.0)
        yield


def network(path: Path, *, width: int, layers: int, dtype: int = TensorProto.FLOAT) -> Path:
    """A stack of 3x3 convolutions: "input" (N, 3, 32, 32) -> "logits" (N, width)."""
    rng = np.random.default_rng(0)
    nodes, weights, x, channels = [], [], "input", 3
    for i in range(layers):
        kernel = rng.normal(size=(width, channels, 3, 3)) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(kernel.astype(helper.tensor_dtype_to_np_dtype(dtype)), f"w{i}"))
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"y{i}"], pads=[1, 1, 1, 1]))
        x, channels = f"y{i}", width
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["logits"]))
    inputs = [helper.make_tensor_value_info("input", dtype, ["batch", 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("logits", dtype, ["batch", width])]
    graph = helper.make_graph(nodes, "network", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return network(tmp_path_factory.mktemp("models") / "slow.onnx", width=48, layers=5)


@pytest.fixture(scope="module")
def fast(slow):
    return network(slow.with_name("fast.onnx"), width=8, layers=2)


@pytest.fixture(scope="module")
def result(slow, fast, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    bare = out / "int8-without-export"
    bare.mkdir()
    models = [slow, fast, slow.with_name("none.onnx"), bare]
    spoken: list[tuple[str, int, int, str]] = []
    result = bench(models, **QUICK, save=out / "bench.json", progress=lambda *words: spoken.append(words))
    assert json.loads((out / "bench.json").read_text()) == result
    assert spoken[-1] == ("measuring", 6, 6, "rounds")
    return result


def test_the_smaller_network_is_faster_beyond_doubt(result):
    slow, fast, *_ = result["rows"]
    assert result["reference"] == {"model": "slow.onnx", "runtime": "onnxruntime"}
    assert slow["verdict"] == "reference"
    assert fast["ratio"] > 2
    assert fast["ratio_ci"][0] > 1
    assert fast["ratio"] == pytest.approx(slow["median_ms"] / fast["median_ms"], rel=0.5)
    assert fast["verdict"] == "faster"
    assert fast["launches"] == [0, 0, 0, 1, 1, 1]


def test_rows_have_the_fields_that_readers_of_the_json_expect(result):
    for row in result["rows"]:
        assert list(row)[:13] == FIELDS.split()
    assert result["rows"][0]["precision"] == "fp32"
    assert result["rows"][0]["device"] == "cpu"
    assert len(result["rows"][0]["rounds_ms"]) == 6


def test_percentiles_are_given_where_the_samples_bound_them(result):
    for row in result["rows"][:2]:
        assert (row["p90_ms"] is not None) == (row["samples"] >= 64)
        assert (row["p99_ms"] is not None) == (row["samples"] >= 662)
    assert result["rows"][1]["p90_ms"] >= result["rows"][1]["median_ms"]


def test_two_copies_are_a_tie(slow):
    """A file of the same content under another name, against the noise of A against A."""
    copy = slow.with_name("copy.onnx")
    copy.write_bytes(slow.read_bytes())
    result = bench([slow, copy], **QUICK)
    assert result["noise"]["ratio"] == pytest.approx(1, abs=0.5)
    lo, hi = result["noise"]["ratio_ci"]
    assert lo <= result["noise"]["ratio"] <= hi
    ratio = result["rows"][1]["ratio"]
    outside = abs(np.log(ratio)) > np.log1p(result["noise"]["floor_pct"] / 100)
    lo, hi = result["rows"][1]["ratio_ci"]
    assert (result["rows"][1]["verdict"] == "tie") == (lo <= 1 <= hi or not outside)


def test_nothing_measured_is_a_failure(tmp_path, capsys):
    (tmp_path / "broken.onnx").write_bytes(bytes(300))
    with pytest.raises(SystemExit) as done:
        run(app, "slimzoo", ["bench", str(tmp_path / "broken.onnx"), "--rounds", "3", "--json"])
    said = capsys.readouterr()
    assert done.value.code == 1
    assert [row["median_ms"] for row in json.loads(said.out)["rows"]] == [None]
    assert said.err.splitlines()[-1].startswith("error: nothing could be measured: not measured: ")


def test_a_damaged_directory_is_refused(fast, slow, tmp_path):
    """As by every verb that reads one: before anything is measured, also beside others."""
    content = fast.read_bytes()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / "model.onnx").write_bytes(content)
    write_manifest(tmp_path / "m")
    (tmp_path / "m" / "model.onnx").write_bytes(content[:99] + bytes([content[99] ^ 255]) + content[100:])
    with pytest.raises(SlimzooError, match=r"m/model\.onnx is not what MANIFEST\.sha256 says"):
        bench([slow, tmp_path / "m"], **QUICK)


def test_what_cannot_be_measured_says_why(result):
    none, bare = result["rows"][2:]
    assert none["reason"].startswith("not measured: ")
    assert none["reason"].endswith("none.onnx does not exist")
    assert bare["reason"].startswith("not measured: no model.onnx: run `slimzoo export ")
    for row in (none, bare):
        assert [row[key] for key in ("median_ms", "p90_ms", "images_per_s", "peak_mb", "ratio", "verdict")] == [
            None
        ] * 6


def test_table_names_every_row_and_ends_with_the_noise(result):
    table = format_rows(result)
    for name in ("slow.onnx", "fast.onnx", "none.onnx", "int8-without-export"):
        assert name in table
    lines = table.splitlines()
    assert "is called a tie" in lines[-1 - len(result["diagnoses"])]
    assert max(map(len, lines[:3])) <= 140


def test_runtimes_that_a_file_does_not_suit_are_said_when_asked_for(fast):
    rows = bench([fast], runtimes=["torch", "torch-cuda"], **QUICK)["rows"]
    assert all("torch cannot run the ONNX file" in row["reason"] for row in rows)
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'"):
        bench([fast], runtimes=["onnx-runtime"])


def test_no_cuda_device_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_rows, "gpu_names", list)
    (tmp_path / "model.safetensors").write_bytes(b"")
    reasons = {row.runtime: row.reason for row in rows_of(tmp_path, "m", None)}
    assert reasons["torch"] is None
    assert reasons["torch-cuda"] == "no CUDA device"
    monkeypatch.setattr(benchmark_rows, "gpu_names", lambda: ["a GPU"])
    rows = rows_of(tmp_path, "m", ["torch-cuda"])
    assert [(row.precision, row.reason) for row in rows] == [(name, None) for name in ("fp32", "tf32", "fp16", "bf16")]


def test_names_are_as_short_as_they_can_be(tmp_path):
    a, b, c = tmp_path / "a/int8", tmp_path / "b/int8", tmp_path / "c/fit"
    assert names_of([a, b, c, "timm:resnet18"]) == ["a/int8", "b/int8", "fit", "timm:resnet18"]
    with pytest.raises(UsageError, match="given twice"):
        names_of([a, a])


class Recorded(WorkerProcess):
    """Remembers its process and, as `victim`, is killed when asked to measure."""

    pids: list[int] = []  # noqa: RUF012
    victim = -1

    def __init__(self, threads):
        super().__init__(threads)
        self.pids.append(self._process.pid)

    def ask(self, do, **request):
        if do == "measure" and self.pids.index(self._process.pid) == self.victim:
            os.kill(self._process.pid, signal.SIGKILL)
        return super().ask(do, **request)


@pytest.fixture
def recorded(monkeypatch):
    kind = type("Recorded", (Recorded,), {"pids": []})
    monkeypatch.setattr(measuring, "WorkerProcess", kind)
    return kind


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_that_dies_is_a_reason(slow, fast, recorded):
    recorded.victim = 1
    result = bench([slow, fast], **QUICK)
    assert "not measured: its process died: killed by SIGKILL" in result["rows"][1]["reason"]
    assert result["rows"][0]["median_ms"] > 0
    assert not any(map(alive, recorded.pids))


def test_an_interrupt_leaves_no_process_behind(slow, recorded):
    def progress(what, done, total, note):
        if (what, done) == ("measuring", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench([slow], **QUICK, progress=progress)
    assert len(recorded.pids) == 2  # the first launch's; the interrupt came in its rounds
    assert not any(map(alive, recorded.pids))


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_parked_worker_is_idle_and_its_memory_its_own(slow):
    ballast = np.ones(300_000_000, dtype=np.uint8)  # ru_maxrss of a child starts from what its parent held
    with WorkerProcess(2) as worker:
        opened = worker.ask("open", runtime="onnxruntime", path=str(slow), threads=2, batch=1, precision="fp32")
        peak_bytes = worker.ask("measure", runs=20)["peak_bytes"]
        before = cpu_s(worker._process.pid)
        time.sleep(0.3)
        assert cpu_s(worker._process.pid) - before <= 0.03
    assert peak_bytes < 200e6 < ballast.nbytes
    assert opened["input_shape"] == [3, SIZE, SIZE]
    assert opened["load_ms"] > 0


def test_worker_says_in_one_line_what_failed(tmp_path, slow):
    with WorkerProcess(1) as worker:
        with pytest.raises(NotMeasuredError, match=r"^the network cannot be opened by onnxruntime: .*absent\.onnx"):
            worker.ask("open", runtime="onnxruntime", path="absent.onnx", threads=1, batch=1, precision="fp32")
        np.save(tmp_path / "inputs.npy", np.zeros((3, 1, 8, 8), dtype=np.float32))
        given = {"runtime": "onnxruntime", "path": str(slow), "threads": 1, "batch": 2, "precision": "fp32"}
        with pytest.raises(NotMeasuredError, match=r"wanted \(N, 3, 32, 32\)"):
            worker.ask("open", **given, inputs=str(tmp_path / "inputs.npy"))
        np.save(tmp_path / "inputs.npy", np.zeros((3, 3, SIZE, SIZE), dtype=np.float32))
        assert worker.ask("open", **given, inputs=str(tmp_path / "inputs.npy"))["device"] == "cpu"


def test_given_images_are_taken_in_turn(tmp_path):
    images = np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones((3, 1, 2, 2), dtype=np.float32)
    np.save(tmp_path / "inputs.npy", images)
    batches = benchmark_worker._batches((1, 2, 2), 2, str(tmp_path / "inputs.npy"))
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [[0, 1], [2, 0], [1, 2], [0, 1]]


def test_worker_ends_when_its_caller_does(slow):
    worker = WorkerProcess(1)
    with worker:
        worker._process.stdin.close()
        assert worker._process.wait(timeout=10) == 0


def test_onnxruntime_side_imports_no_torch(slow):
    code = (
        "import sys, numpy as np\n"
        "import compress.benchmark.worker\n"
        "from compress.benchmark.runtimes import RUNTIMES\n"
        f"runtime = RUNTIMES['onnxruntime']({str(slow)!r}, threads=1, precision='fp32')\n"
        "print(runtime.run(np.zeros((2, 3, 32, 32), dtype=np.float32)).shape)\n"
        "assert not {'torch', 'onnx', 'scipy'} & set(sys.modules), 'heavy'\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.stdout.strip(), answer.stderr) == ("(2, 48)", "")


def test_runtime_gives_what_the_network_says(fast):
    runtime = RUNTIMES["onnxruntime"](fast)
    batch = np.random.default_rng(0).standard_normal((3, *runtime.input_shape), dtype=np.float32)
    reference = ReferenceEvaluator(str(fast)).run(None, {"input": batch})[0]
    np.testing.assert_allclose(runtime.run(batch), reference, atol=1e-5)


def test_precision_is_read_from_the_graph(tmp_path, fast):
    assert precision_of(onnx.load(fast)) == "fp32"
    half = network(tmp_path / "half.onnx", width=8, layers=2, dtype=TensorProto.FLOAT16)
    runtime = RUNTIMES["onnxruntime"](half)
    assert runtime.precision == "fp16"
    assert runtime.run(np.zeros((1, *runtime.input_shape), dtype=np.float32)).shape == (1, 8)
    quantized = onnx.load(fast)
    quantized.graph.node.append(helper.make_node("QuantizeLinear", ["logits", "s", "z"], ["q"]))
    assert precision_of(quantized) == "int8"


def test_machine_names_itself():
    described = machine.describe_machine()
    assert described["processor"]
    assert 1 <= described["cores"] <= described["threads"]
    assert 1 <= machine.default_threads() <= described["cores"]
    if hasattr(os, "sched_getaffinity"):
        assert set(machine.cpus_for(machine.default_threads())) <= os.sched_getaffinity(0)


def test_threads_go_to_different_cores_first(monkeypatch):
    monkeypatch.setattr(machine, "_cores", lambda: [[0, 4], [1, 5], [2, 6]])
    assert machine.cpus_for(2) == [0, 1]
    assert machine.cpus_for(5) == [0, 1, 2, 4, 5]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    from zoo.create import create_model
    from zoo.files.directory import new_directory
    from zoo.files.model_directory import ModelConfig, save_model
    from zoo.preprocess import Preprocess

    preprocess = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
    config = ModelConfig(architecture="lenet5", model_args={"num_classes": 3}, classes=None, preprocess=preprocess)
    out = tmp_path_factory.mktemp("torch") / "lenet"
    with new_directory(out, run={}) as work:
        save_model(work, create_model("lenet5", num_classes=3), config)
    return out


def test_torch_gives_what_the_model_says(directory):
    import torch

    from zoo.files.model_directory import load_model

    runtime = RUNTIMES["torch"](directory, threads=1)
    assert (runtime.name, runtime.device, runtime.precision, runtime.input_shape) == (
        "torch",
        "cpu",
        "fp32",
        (1, 28, 28),
    )
    batch = np.random.default_rng(0).standard_normal((5, 1, 28, 28), dtype=np.float32)
    with torch.inference_mode():
        wanted = load_model(directory).model(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(runtime.run(batch), wanted, atol=1e-5)


@pytest.mark.slow
def test_a_model_directory_in_every_runtime(directory):
    rows = {row["runtime"]: row for row in bench([directory], **QUICK)["rows"]}
    assert set(rows) == {"onnxruntime", "torch", "torch-cuda"}
    assert rows["torch"]["verdict"] == "reference"
    assert rows["torch"]["size_bytes"] == (directory / "model.safetensors").stat().st_size
    assert "slimzoo export" in rows["onnxruntime"]["reason"]
