"""Every runtime gives the same logits; what is not there says what to install."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from compress.benchmark.harness import bench
from compress.benchmark.runtimes import PROVIDERS, RUNTIMES
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
