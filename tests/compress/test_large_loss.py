"""A step that costs more than 5 points says so in its last lines, with what to do, and in its document."""

import json

import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.step import large_loss

STEPS = {  # options, and what the advice names
    "sparsify": (["--density", "0.002", "--epochs", "1"], "--epochs"),
    "prune": (["--macs", "0.8", "--recover", "0"], "--recover"),
    "cluster": (["--bits", "5", "--epochs", "0"], "--bits"),
    "quantize": ([], "--max-drop"),
}


def slimzoo(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def fitted(three, tmp_path_factory):
    out = tmp_path_factory.mktemp("loss") / "m"
    slimzoo("fit", three, "--model", "lenet5", "--method", "scratch", "--epochs", 8, "--out", out)
    return out


def points_lost(document, part="val"):
    before, after = (document["metrics"][when][part]["top1"] for when in ("before", "after"))
    return 100 * (before - after)


@pytest.mark.parametrize(
    ("verb", "enough"),
    [
        ("sparsify", 5.0),
        ("prune", -100.0),
        *(pytest.param(verb, -100.0, marks=pytest.mark.slow) for verb in ("cluster", "quantize")),
    ],
)
def test_a_large_loss_is_told_in_the_last_lines(fitted, three, tmp_path, monkeypatch, verb, enough):
    """Two weights of a thousand are too few; what the other steps lose here is little, and told from -100 points on."""
    monkeypatch.setattr("compress.step.LARGE_LOSS", enough)
    options, advice = STEPS[verb]
    done = slimzoo(verb, fitted, "--data", three, *options, "--out", tmp_path / "new", "--json")
    document = json.loads(done.stdout)
    assert points_lost(document) > enough, "or this shows nothing"
    assert document["large_loss"]["points"] == pytest.approx(points_lost(document), abs=0.01)
    said = done.stderr[done.stderr.index("WARN: ") :].splitlines()
    assert f"{points_lost(document):.1f} points fewer of the validation images are right than before" in said[0]
    assert advice in said[0]
    assert said[1] == "Next:"


def test_a_student_below_its_teacher_is_told(fitted, three, tmp_path):
    words = ["distill", "lenet5", "--teacher", fitted, "--data", three, "--epochs", 0]
    done = slimzoo(*words, "--out", tmp_path / "new", "--json")
    document = json.loads(done.stdout)
    lost = 100 * (document["teacher"]["val"]["top1"] - document["metrics"]["after"]["val"]["top1"])
    assert lost > 5, "or this shows nothing"
    assert f"WARN: {lost:.1f} points fewer of the validation images are right than by its teacher" in done.stderr
    assert document["large_loss"]["than"] == "by its teacher"


def test_a_mild_step_says_nothing(fitted, three, tmp_path):
    mild = ["--density", "0.9", "--epochs", "1"]
    done = slimzoo("sparsify", fitted, "--data", three, *mild, "--out", tmp_path / "new", "--json")
    document = json.loads(done.stdout)
    assert points_lost(document) <= 5, "or this shows nothing"
    assert document["large_loss"] is None
    assert "WARN: " not in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        ({"val": 0.9, "test": 0.9}, {"val": 0.84, "test": 0.9}, "val"),
        ({"val": 0.9, "test": 0.9}, {"val": 0.85, "test": 0.1}, None),  # just 5 points; validation images decide
        ({"test": 0.9}, {"test": 0.5}, "test"),  # there is nothing else
        ({"val": 0.5}, {"val": 0.9}, None),
        ({}, {}, None),
        (None, {"val": 0.1}, None),
    ],
)
def test_what_counts_as_much(before, after, part):
    def metrics(found):
        return None if found is None else {name: {"top1": top1} for name, top1 in found.items()}

    found = large_loss(metrics(before), metrics(after), "more --epochs")
    assert (found and found["part"]) == part
