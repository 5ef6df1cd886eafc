"""What a search begins with: what is named and is not there, and images that are others than those of the fit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from compress.plan.ledger import Ledger
from compress.plan.searching import Search
from compress.plan.step import compress
from compress.plan.trial import Candidate
from compress.plan.worker import help_search
from compress.resuming import resume
from transfer.fitting.step import fit
from zoo.errors import UsageError

pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def nothing_is_done(monkeypatch):
    """Neither exported nor timed nor trained."""

    def refused(*given, **more):
        raise AssertionError("it was begun")

    monkeypatch.setattr("compress.plan.step._promise", refused)
    monkeypatch.setattr("compress.plan.step.begin", refused)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "fited", "data": "digits"}, "no model 'fited': did you mean 'fitted'"),
        ({"source": "nowhere", "data": "digits"}, "no model 'nowhere': wanted a model directory, an ONNX file, timm:"),
        ({"source": "resnet18", "data": "digits"}, "`slimzoo compress digits --model resnet18` does both"),
        ({"source": "made", "data": "digits"}, r"of which one model is meant: made.model"),
        ({"source": "fitted", "data": "digit"}, "no dataset 'digit': did you mean 'digits'"),
        ({"source": "gone.onnx", "data": "digits"}, "gone.onnx does not exist"),
        ({"source": "digits", "model": "resnet19"}, "did you mean .*'resnet18'"),
        ({"source": "digits", "model": "mlp"}, "mlp"),
        ({"source": "digits", "model": "lenet5"}, "lenet5"),
        ({"source": "digits", "plan": "plan.yaml"}, "no model|unknown model|resnet19"),
        ({"source": "digits", "plan": "cut.yaml"}, "the plan's `prune`: no dataset 'nowhere'"),
        ({"source": "digits", "runtime": ["torch"]}, "unknown runtime .*it must be one of onnxruntime, openvino"),
        ({"source": "digits", "student": "resnet18"}, r"student='resnet18' must be a list"),
        ({"source": "digits", "shares": [0.0, 1.5]}, "a share of MACs of 0.0"),
        ({"source": "digits", "max_drop": True}, "max_drop=True must be a number"),
        ({"source": "digits", "study": "nosuchdatabase://x/y"}, "cannot be opened"),
        (
            {"source": "digits", "plan": "fast", "study": "sqlite:///x.db"},
            "leave out shares, student, trials and study",
        ),
        ({"source": "digits", "data": "digits"}, "one source too many"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(given, said, dense, tmp_path, monkeypatch, nothing_is_done):
    monkeypatch.chdir(tmp_path)
    for place in ("fitted", "made/model"):
        (tmp_path / place).mkdir(parents=True)
        for file in dense.iterdir():
            if file.is_file():
                (tmp_path / place / file.name).write_bytes(file.read_bytes())
    (tmp_path / "plan.yaml").write_text("steps: [{fit: {model: resnet19}}]", encoding="utf-8")
    (tmp_path / "cut.yaml").write_text("steps: [{prune: {macs: 0.5, unlabeled: nowhere}}]", encoding="utf-8")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UsageError, match=said):
        compress(given.pop("source"), **given, out=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_dataset_of_torchvision_is_no_model_of_its(tmp_path, slimzoo):
    told = slimzoo("compress", "torchvision:CIFAR10", "--offline", "--out", tmp_path / "out")
    assert told.code == 2
    assert "CIFAR10" in told.err
    assert "download" in told.err
    assert "--data" not in told.err


def test_a_dry_run_looks_for_what_is_named(tmp_path, slimzoo):
    for words in (["phtos"], ["digits", "--model", "resnet19"], ["digits", "--worker", "sqlite:///x.db"]):
        told = slimzoo("compress", *words, "--dry-run")
        assert told.code == 2, words


def test_losses_are_of_the_images_that_are_there_now(dense, photos, tmp_path):
    """Some came since the fit: what it answered then is of others."""
    held = dict(np.load(photos))
    more = np.clip(held["images"][:40].astype(int) + 3, 0, 255).astype(np.uint8)
    images, labels = np.concatenate([held["images"], more]), np.concatenate([held["labels"], held["labels"][:40]])
    np.savez(tmp_path / "more.npz", images=images, labels=labels)
    found = compress(dense, data=tmp_path / "more.npz", max_drop=100, shares=[0.4], out=tmp_path / "out")
    assert found.met
    assert all(trial["drop"] is not None for trial in found.record["variants"])


def test_images_of_other_classes_are_refused_at_once(dense, tmp_path, nothing_is_done):
    with pytest.raises(UsageError, match=r"has 10 classes .* the model has"):
        compress(dense, data="digits", max_drop=100, out=tmp_path / "out")


def test_a_model_that_cannot_be_judged_is_refused_at_once(photos, tmp_path, nothing_is_done):
    fit(photos, model="lenet5_caffe", method="scratch", epochs=1, size=28, val=0, out=tmp_path / "fitted")
    with pytest.raises(UsageError, match="no answers to validation images"):
        compress(tmp_path / "fitted", data=photos, out=tmp_path / "out")


def test_a_worker_helps_with_the_same_model_alone(dense, photos, tmp_path, monkeypatch):
    fit(photos, model="lenet5_caffe", method="scratch", epochs=1, size=28, seed=9, out=tmp_path / "other")
    said = []

    def tell(line):
        if "--worker" in line:
            with pytest.raises(UsageError, match="another model than the search was begun with"):
                help_search(line.split("--worker ")[1].strip("'"), tmp_path / "other", data=photos)
            said.append(line)

    compress(dense, data=photos, max_drop=100, shares=[0.4], tell=tell, out=tmp_path / "out")
    assert said


def test_who_finishes_waits_for_nobody(dense, photos, tmp_path, monkeypatch):
    """A worker that nobody has stopped begins nothing more, and what it is at is not waited for."""
    given = {"data": photos, "max_drop": 100, "shares": [0.4], "seed": 77}
    compress(dense, **given, out=tmp_path / "before")
    waited, allowed = [], []
    monkeypatch.setattr(Ledger, "running", lambda self: {Candidate(0.6)})
    monkeypatch.setattr(Search, "_wait", lambda self, others: waited.append(others))
    monkeypatch.setattr(Ledger, "allow", lambda self, seconds: allowed.append(seconds))
    found = compress(dense, **given, finish=True, out=tmp_path / "finished")
    assert found.met
    assert (waited, allowed) == ([], [0.0])


def test_that_it_was_to_be_finished_is_forgotten(dense, photos, tmp_path, monkeypatch):
    """By what goes on afterwards, as is where it lies."""

    def stop(*given, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("compress.plan.step._run", stop)
        with pytest.raises(KeyboardInterrupt):
            compress(dense, data=photos, max_drop=100, finish=True, seed=78, shares=[0.4], out=tmp_path / "out")
    run = json.loads((tmp_path / "out.partial" / "run.json").read_text(encoding="utf-8"))
    assert run["arguments"]["finish"] is False
    monkeypatch.chdir(tmp_path / "out.partial")
    found = resume(".")
    assert found.out == tmp_path / "out"
    assert "pruned-40" in {trial["name"] for trial in found.record["variants"]}


def test_a_damaged_run_is_told_as_such(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "run.json").write_text('{"verb": "comp', encoding="utf-8")
    with pytest.raises(UsageError, match=r"run.json is damaged"):
        resume(tmp_path / "out")
