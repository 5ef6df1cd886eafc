"""deploy/bench.py: on a machine with onnxruntime and NumPy alone, and what the report makes of its file."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.benchmark.harness import bench
from compress.cli import app
from compress.deployment.export import export
from compress.report.report import build_report
from compress.report.variants import BENCH_ROW
from zoo.console import run
from zoo.create import create_model
from zoo.errors import UsageError
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, save_model
from zoo.image import ImageError
from zoo.preprocess import Preprocess

SCRIPT = Path(__file__).parents[3] / "compress/deployment/bench.py"
# what a machine in the field does not have
BARE = "import runpy, sys; sys.modules |= dict.fromkeys(('PIL', 'torch', 'onnx', 'psutil', 'scipy', 'zoo'))\n"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A directory of one exported model, whose bench.py takes less time over it."""
    preprocess = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
    config = ModelConfig(architecture="lenet5", model_args={"num_classes": 3}, classes=None, preprocess=preprocess)
    out = tmp_path_factory.mktemp("out")
    with new_directory(out / "lenet", run={}) as work:
        save_model(work, create_model("lenet5", num_classes=3), config)
    export(out / "lenet")
    script = tmp_path_factory.mktemp("elsewhere") / "deploy" / "bench.py"
    shutil.copytree(out / "lenet" / "deploy", script.parent)
    text = script.read_text()
    quick = text.replace("= 8, 2, 0.2, 3", "= 3, 2, 0.01, 3")
    assert quick != text
    script.write_text(quick)
    return out, script


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "<script>.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(path)
    return path


def test_it_is_short_and_old_python_reads_it():
    text = SCRIPT.read_text(encoding="utf-8")
    assert text.count("\n") <= 120
    ast.parse(text, feature_version=(3, 9))


def test_with_onnxruntime_and_numpy_alone(out, tmp_path):
    directory, script = out
    code = f"{BARE}\nsys.argv[1:] = sys.argv[2:]\nrunpy.run_path({str(script)!r}, run_name='__main__')"
    once = subprocess.run(
        [sys.executable, "-P", "-c", code, "", "--once", "--threads", "1"], capture_output=True, text=True
    )
    assert once.stderr == ""
    assert json.loads(once.stdout)["ms"][0] > 0
    command = [sys.executable, "-P", script, "--threads", "1", "--out", tmp_path / "pi.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((tmp_path / "pi.json").read_text())
    (row,) = result["rows"]
    assert BENCH_ROW <= row.keys()
    assert row["sha256"] == hashlib.sha256((directory / "lenet" / "model.onnx").read_bytes()).hexdigest()
    assert row["launches"] == [0, 0, 1, 1, 2, 2]
    assert min(row["rounds_ms"]) <= row["median_ms"] <= max(row["rounds_ms"])
    assert done.stdout.startswith(f"network: {row['median_ms']:.3g} ms with 1 threads")
    assert result["machine"]["processor"]


def test_photos_take_the_whole_way(out, photo, tmp_path):
    _, script = out
    done = subprocess.run(
        [sys.executable, script, photo, "--out", tmp_path / "pi.json"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads((tmp_path / "pi.json").read_text())["rows"]
    parts = row["answers"][photo.name]
    assert parts["decode_ms"] > 0
    assert parts["whole_ms"] >= parts["decode_ms"] + parts["network_ms"] * 0.5
    assert f"{photo.name}: " in done.stdout


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["absent.jpg"], "absent.jpg: No such file or directory"),
        (["--out", "absent/pi.json"], "No such file or directory"),
        (["--threads", "two"], "invalid int value: 'two'"),
    ],
)
def test_what_is_wrong_is_one_line(out, argv, said, tmp_path):
    done = subprocess.run([sys.executable, out[1], *argv], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def measured(out, photo):
    directory, _ = out
    return bench(
        [directory / "lenet"], runtimes=["onnxruntime"], threads=1, rounds=2, seconds_per_round=0.01, photos=[photo]
    )


def test_bench_measures_the_same_way(out, photo, measured):
    (row,) = measured["rows"]
    parts = row["answers"][photo.name]
    assert parts["decode_ms"] > 0
    assert parts["network_ms"] > 0
    assert parts["whole_ms"] >= parts["decode_ms"]
    assert row["answer_mb"] >= row["peak_mb"] * 0.5
    assert "From photo to answer:" in str(measured)
    assert photo.name in str(measured)


def test_photos_that_cannot_be_read_are_told_at_once(out, monkeypatch):
    monkeypatch.setattr("compress.benchmark.measuring.WorkerProcess", None)
    with pytest.raises(ImageError, match=r"bench\.py: not an image"):
        bench([out[0] / "lenet"], photos=[SCRIPT])


def test_other_machines_stand_in_the_report(out, photo, measured, tmp_path):
    directory, script = out
    shutil.copytree(directory, tmp_path / "out")
    elsewhere = tmp_path / "pi.json"
    subprocess.run(
        [sys.executable, script, photo, "--threads", "1", "--out", elsewhere], check=True, capture_output=True
    )
    result = json.loads(elsewhere.read_text())
    result["machine"]["processor"] = "Cortex-A76 <b>&\n"
    elsewhere.write_text(json.dumps(result))
    saved = tmp_path / "server.json"
    saved.write_text(json.dumps(measured))
    report = build_report(tmp_path / "out", elsewhere=[elsewhere, saved])
    page = report.html.read_text()
    assert "Other machines" in page
    assert "Cortex-A76 &lt;b&gt;&amp;" in page
    assert "<script>.jpg" not in page
    assert report.markdown.read_text().count("`lenet` | onnxruntime | 1") == 2


def test_files_of_other_models_are_refused(out, measured, tmp_path, capsys):
    directory, _ = out
    (tmp_path / "other.json").write_text(json.dumps(measured | {"rows": [measured["rows"][0] | {"sha256": "0"}]}))
    with pytest.raises(UsageError, match=r"other\.json was measured of other models than lenet; copy"):
        build_report(directory, elsewhere=[tmp_path / "other.json"])
    (tmp_path / "list.json").write_text("[]")
    for file, said in (("list.json", "is no benchmark"), ("absent.json", "does not exist")):
        with pytest.raises(SystemExit) as done:
            run(app, "slimzoo", ["report", str(directory), "--with", str(tmp_path / file)])
        assert done.value.code == 2
        assert said in capsys.readouterr().err
