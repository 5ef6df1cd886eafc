"""Distillation: what a student loses against its teacher, and the step from model directories to a new one."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from compress.cli import app
from compress.distillation.step import distill
from compress.recovery.distillation import Distillation
from compress.recovery.teacher import Translation, similarity_loss, softened_divergence, train_student
from transfer.data.loader import LabelledPixels
from transfer.fitting.step import fit
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo.classifier import classifier
from zoo.create import create_model
from zoo.errors import UsageError
from zoo.files.model_directory import load_model, read_config
from zoo.files.predictor import TorchPredictor
from zoo.preprocess import Preprocess

ROOT = Path(__file__).parents[3]
GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
run = CliRunner().invoke


def test_the_softened_divergence_is_its_definition():
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(5, 7)) * 3 for _ in range(2))

    def softmax(logits, temperature):
        powers = np.exp(logits / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    for temperature in (1.0, 4.0):
        p, q = softmax(teacher, temperature), softmax(student, temperature)
        expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
        found = softened_divergence(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
        assert float(found) == pytest.approx(expected)


def test_at_high_temperatures_logits_are_matched():
    """Hinton et al. 2015, eq. 4: the gradient tends to (z - v) / N for logits of mean zero, here a mean over images."""
    torch.manual_seed(0)
    student, teacher = (t - t.mean(dim=1, keepdim=True) for t in torch.randn(2, 6, 10, dtype=torch.float64))
    student.requires_grad_()
    softened_divergence(student, teacher, 1e4).backward()
    torch.testing.assert_close(student.grad, (student - teacher).detach() / (10 * 6), rtol=1e-3, atol=1e-6)


def test_similarity_is_its_definition_and_knows_no_rotation():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(6, 5)), rng.normal(size=(6, 9))
    expected = 0.0
    for i in range(6):
        rows = []
        for features in (student, teacher):
            row = np.array([sum(a * b for a, b in zip(features[i], features[j], strict=True)) for j in range(6)])
            rows.append(row / np.sqrt((row**2).sum()))
        expected += ((rows[0] - rows[1]) ** 2).sum() / 36
    assert float(similarity_loss(torch.from_numpy(student), torch.from_numpy(teacher))) == pytest.approx(expected)
    turn, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    turned = torch.from_numpy(3 * teacher @ turn)
    assert float(similarity_loss(turned, torch.from_numpy(teacher))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("field", "value"), [("temperature", 0), ("weight", 1.5), ("features", -1)])
def test_what_cannot_be_is_refused(field, value):
    with pytest.raises(UsageError, match=rf"{field}={value} must be "):
        Distillation(**{field: value})


def test_the_teacher_sees_what_it_would_have_seen():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    mine = Preprocess(size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    its = Preprocess(size=(8, 8), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    seen = Translation(mine, its)(torch.from_numpy(mine.normalize(images)))
    torch.testing.assert_close(seen, torch.from_numpy(its.normalize(images)), rtol=1e-5, atol=1e-5)
    larger = Translation(mine, replace(its, size=(16, 12)))(torch.from_numpy(mine.normalize(images)))
    assert larger.shape == (2, 3, 16, 12)
    with pytest.raises(UsageError, match="the student sees 3 channels and the teacher 1"):
        Translation(mine, GREY)


def test_a_student_learns_its_teachers_answers_and_both_models_stay():
    """The labels are noise, so that what is learned comes from the teacher."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    teacher, student = (create_model("lenet5", num_classes=4).eval() for _ in range(2))
    pixels = LabelledPixels(rng.integers(0, 256, (64, 28, 28, 1), np.uint8), rng.integers(0, 4, 64))
    states = [{name: t.clone() for name, t in model.state_dict().items()} for model in (teacher, student)]
    recipe = Recipe(epochs=15, batch=16, lr=1e-2, backbone_lr=1e-2, freeze_statistics=False, ema=0.5)
    found = train_student(
        student,
        TrainingData(pixels, None, GREY),
        recipe,
        teacher=teacher,
        seen_by_teacher=GREY,
        how=Distillation(weight=1.0, features=10.0),
    )
    wanted, before, after = (
        TorchPredictor(model, GREY, None).logits(pixels.pixels) for model in (teacher, student, found.model)
    )
    assert np.abs(after - wanted).mean() < 0.3 * np.abs(before - wanted).mean()
    for model, state in zip((teacher, student), states, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for model in (teacher, student, found.model):
        assert not classifier(model)._forward_pre_hooks


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "dense"
    fit("digits", model="lenet5_caffe", method="scratch", epochs=4, out=out)
    return out


def test_a_model_by_name_learns_from_a_directory(teacher, tmp_path):
    argv = ["distill", "lenet_300_100", "--teacher", teacher, "--data", "digits", "--epochs", "4"]
    done = run(app, [str(word) for word in (*argv, "--size", "28", "--out", tmp_path / "small", "--json")])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["verb"] == "distill"
    assert record["teacher"]["params"] == 431_080
    assert record["metrics"]["before"] is None
    assert record["metrics"]["after"]["params"] == 266_610
    assert record["metrics"]["after"]["test"]["top1"] > 0.85
    assert load_model(tmp_path / "small").config.classes == load_model(teacher).config.classes
    again = distill(tmp_path / "small", teacher=teacher, data="digits", epochs=1, out=tmp_path / "again")
    assert [step["verb"] for step in again.config.lineage] == ["distill", "distill"]
    assert again.record["metrics"]["before"] == record["metrics"]["after"]


def test_students_that_cannot_be(teacher, tmp_path):
    fit("digits", model="lenet5", method="scratch", epochs=0, out=tmp_path / "student")
    with pytest.raises(UsageError, match="has its own; leave it out"):
        distill(tmp_path / "student", teacher=teacher, data="digits", size=32, out=tmp_path / "out")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert read_config(tmp_path / "student").classes == tuple(config["label_names"])
    pictures = tmp_path / "two.npz"
    np.savez(
        pictures, images=np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8), labels=np.arange(20) % 2
    )
    fit(pictures, model="lenet5", method="scratch", epochs=0, size=28, out=tmp_path / "two")
    with pytest.raises(UsageError, match="both must be fitted to the same data"):
        distill(tmp_path / "two", teacher=teacher, data="digits", out=tmp_path / "out")
    fit(pictures, model="lenet5", method="scratch", epochs=0, size=28, seed=1, out=tmp_path / "other-split")
    with pytest.raises(UsageError, match=r"another split of .* than its teacher"):
        distill(tmp_path / "other-split", teacher=tmp_path / "two", data=pictures, out=tmp_path / "out")


@pytest.mark.slow
def test_a_distillation_that_is_killed_and_resumed_ends_with_the_same_bits(teacher, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "compress",
        "distill",
        "lenet5_caffe",
        "--teacher",
        str(teacher),
        "--data",
        "digits",
    ]
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, env=environment, cwd=ROOT, capture_output=True)
    process = subprocess.Popen(
        [*command, "--out", tmp_path / "killed"], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while not any((tmp_path / "killed.partial" / "checkpoints").glob("step-*/state.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resume = [sys.executable, "-m", "compress", "resume", str(tmp_path / "killed")]
    subprocess.run(resume, check=True, env=environment, cwd=ROOT, capture_output=True)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
