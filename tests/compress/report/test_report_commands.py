"""The commands that a report prints, typed again: the same arguments, and the same answers."""

from __future__ import annotations

import json
import shlex

import pytest
from typer.testing import CliRunner

from compress import cluster, distill, export, prune, quantize, sparsify
from compress.cli import app
from compress.report.sections import command
from transfer.fitting.step import fit

run = CliRunner().invoke
FITTED = {"model": "lenet5_caffe", "method": "scratch", "epochs": 1, "flip": False, "settings": {"clip_norm": 2.5}}


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    out = tmp_path_factory.mktemp("commands") / "dense"
    fit("digits", **FITTED, out=out)
    return out


def test_fit(tmp_path):
    typed_again(fit("digits", **FITTED, time_s=90.0, lr=2e-3, seed=2, out=tmp_path / "x"), tmp_path)


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        (
            prune,
            {
                "macs": 0.4,
                "rounds": 2,
                "recover": 2,
                "criterion": "l2",
                "floor": 0.05,
                "sparse_epochs": 1,
                "weight": 0.5,
                "features": 3.0,
                "patience": 1,
            },
        ),
        (sparsify, {"density": 0.3, "epochs": 1, "ranking": "layer", "seed": 3}),
        (quantize, {"max_drop": 50.0, "ranges": "mse", "keep": ["conv2"]}),
    ],
)
def test_a_step(dense, tmp_path, verb, options):
    typed_again(verb(dense, data="digits", **options, out=tmp_path / "x"), tmp_path)


def test_cluster(resnet8, tmp_path):
    fit("digits", **{**FITTED, "model": resnet8}, out=tmp_path / "small")  # coding takes its time
    typed_again(
        cluster(tmp_path / "small", data="digits", bits=3.0, bit_price=0.006, epochs=1, out=tmp_path / "x"), tmp_path
    )


def test_distill(dense, tmp_path):
    given = {"epochs": 1, "size": 28, "temperature": 2.0, "features": 1.0, "patience": 1}
    typed_again(distill("lenet5", teacher=dense, data="digits", **given, out=tmp_path / "x"), tmp_path)


def test_export(dense):
    record = export(dense).record
    assert command(record) == shlex.join(["slimzoo", "export", str(dense)])


def typed_again(step, tmp_path):
    words = shlex.split(command(step.record))
    words[words.index("--out") + 1] = str(tmp_path / "again")
    done = run(app, [*words[1:], "--json"])
    assert done.exit_code == 0, done.output
    again = json.loads(done.stdout)
    first = json.loads(json.dumps(step.record))
    assert again["arguments"] == {**first["arguments"], "out": str(tmp_path / "again")}
    assert again["metrics"]["after"]["test"] == first["metrics"]["after"]["test"]
