"""Of a small dataset every image is trained on in the end, and what is said of it was answered before."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from compress import distill, export, prune, quantize
from compress.pruning import cutter
from compress.pruning.recover import Kept
from transfer.data.augment import Augment
from transfer.data.dataset import open_data
from transfer.data.loader import LabelledPixels
from transfer.data.parts import read_pixels
from transfer.evaluation.evaluate import evaluate, evaluate_pixels
from transfer.evaluation.measure import predictor_of
from transfer.evaluation.statistics import GAIN
from transfer.fitting import refit
from transfer.fitting.start import start
from transfer.fitting.step import fit
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from transfer.training.step import CannotTrain
from zoo.errors import DataError
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import load_model

SMALL = {"model": "lenet5", "method": "scratch", "size": 28, "batch": 8, "epochs": 3, "seed": 1}


NAMES = ("pixels", "labels")


def weights(model):
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()])


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    return fit(photos, **SMALL, out=tmp_path_factory.mktemp("fit") / "m")


def test_the_judge_is_what_a_validation_part_would_have_made(fitted, photos):
    alone = fit(photos, **SMALL, val=0.2)
    loaded = load_model(fitted.out, judge=True)
    assert torch.equal(weights(loaded.judge), weights(alone.model))
    assert torch.equal(weights(loaded.model), weights(fitted.model))
    assert not torch.equal(weights(loaded.model), weights(loaded.judge))
    assert fitted.record["metrics"]["after"]["val"] == alone.record["metrics"]["after"]["val"]
    assert load_model(fitted.out).judge is None, "who only asks for answers does not wait for it"


def test_what_is_said_of_new_images_rests_on_all_that_there_are(photos, tmp_path):
    fitted = fit(photos, method="probe", size=32, out=tmp_path / "probe")
    expected, whole = fitted.record["metrics"]["after"]["expected"], fitted.record["notes"]["whole"]
    assert expected["n"] == whole["images"] == 40
    few = (1 - 1 / 10) ** (1 / 3)  # of more than ten of a class each fold leaves out a tenth
    assert expected["top1"] == pytest.approx(1 - few * (1 - whole["cross_validated_top1"]), abs=1e-6)
    low, high = expected["top1_ci"]
    assert low < fitted.after.expected.top1 <= high
    assert any(f"expect {expected['top1']:.1%} of new images" in line for line in fitted.lines())
    assert f"40 images | {expected['top1']:.1%}" in (tmp_path / "probe" / "README.md").read_text(encoding="utf-8")


def test_what_training_brought_its_fold_says(photos):
    """From the two models' own answers to the images that both had not seen."""
    fitted = fit(photos, method="finetune", size=32, epochs=2)
    after, notes = fitted.record["metrics"]["after"], fitted.record["notes"]
    shares = notes.get("val_top1", {})
    assert after["expected"]["changed_n"] == after["val"]["n"] == 8
    if notes["whole"].get("probe"):  # it was kept
        start = notes["whole"]["probe"]["cross_validated_top1"]
        told = min(1.0, start + GAIN), min(1.0, start + shares["finetune"] - shares["probe"])
        assert min(told) - 1e-6 <= after["expected"]["top1"] <= max(told) + 0.04 * (1 - start) + 1e-6


def test_methods_are_compared_by_all_images_that_they_had_not_seen(tmp_path):
    """Of few images whose colours overlap, so that every method is wrong of some."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = (
        rng.integers(0, 120, (60, 32, 32, 3))
        + rng.integers(0, 100, (60, 1, 1, 3))
        + 30 * np.eye(3)[labels][:, None, None]
    )
    np.savez(tmp_path / "colours.npz", pixels=images.astype(np.uint8), labels=labels)
    auto = fit(tmp_path / "colours.npz", size=32, epochs=2).record["notes"]["auto"]
    rows = {row["method"]: row for row in auto["methods"]}
    frozen = min(("prototype", "probe"), key=lambda name: rows[name]["expected_loss"])
    assert auto["chosen"] in (frozen, "finetune")
    if rows["finetune"]["expected_loss"] < rows[frozen]["expected_loss"]:
        assert auto["chosen"] == "finetune"
    assert any(row["expected_loss"] != row["val_loss"] for row in rows.values())
    gained = [rows["finetune"][key] - rows["probe"][key] for key in ("val_loss", "expected_loss")]
    assert gained[0] == pytest.approx(gained[1], abs=2e-6), "both start from one probe"


def test_a_part_that_was_held_out_says_it_itself(photos):
    assert "expected" not in fit(photos, method="probe", size=32, val=0.2).record["metrics"]["after"]


def test_what_is_written_saw_every_image(fitted, photos):
    """The training loop by itself, on all of them and by the recipe on record, makes the same but for calibration."""
    notes, data = fitted.record["notes"], open_data(photos, seed=1)
    assert notes["whole"]["images"] == 40
    assert notes["whole"]["recipe"] == notes["recipe"]
    recipe = Recipe(**{**notes["recipe"], "augment": Augment(**notes["recipe"]["augment"])})
    torch.manual_seed(1)
    network, config = start("lenet5", data, "scratch", 28, None)
    pixels = read_pixels(data, config.preprocess, None)
    images, labels = (np.concatenate([getattr(part, name) for part in (pixels.train, pixels.val)]) for name in NAMES)
    trained = finetune(network, TrainingData(LabelledPixels(images, labels), None, config.preprocess), recipe).model
    own, theirs = (predictor_of(model, config).logits(images) for model in (trained, fitted.model))
    np.testing.assert_allclose(theirs * notes["calibration"]["temperature"], own, rtol=1e-4, atol=1e-5)


def test_eval_answers_held_out_images_by_the_judge_and_files_refuse_them(fitted, photos, tmp_path):
    found = evaluate(fitted.out, photos)
    assert found.part == "held out"
    assert found.evaluation.top1 == pytest.approx(fitted.after.val.top1, abs=1e-6)
    assert evaluate(fitted, photos).evaluation.top1 == found.evaluation.top1
    assert evaluate(fitted.out, photos, all=True).evaluation.n == 40
    export(fitted.out)
    with pytest.raises(DataError, match="was trained on all images of"):
        evaluate(fitted.out / "model.onnx", photos)


@pytest.fixture(scope="module")
def cut(fitted, photos, tmp_path_factory):
    told = []
    out = tmp_path_factory.mktemp("prune") / "cut"
    with pytest.MonkeyPatch.context() as patch:
        scored = Mock(wraps=cutter.scored)
        patch.setattr(cutter, "scored", scored)
        step = prune(fitted.out, data=photos, macs=0.6, recover=1, round_to=1, out=out, tell=told.append)
    assert scored.call_count == 1, "what the judge has decided is not scored again"
    assert any(line.startswith("ok    first loss") for line in told)
    assert len(told) == len(set(told)), "of two trainings one is tried and told of"
    return step


def test_a_step_judges_by_the_judge_and_cuts_both_alike(fitted, cut, photos):
    loaded = load_model(cut.out, judge=True)
    shapes = [[tuple(t.shape) for t in model.state_dict().values()] for model in (loaded.model, loaded.judge)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(weights(loaded.model), weights(loaded.judge))
    data = open_data(photos, seed=1)
    val = read_pixels(data, loaded.config.preprocess, None).val
    for model, said in ((load_model(fitted.out, judge=True).judge, cut.before.val), (loaded.judge, cut.after.val)):
        found = evaluate_pixels(predictor_of(model, loaded.config), val, 2)
        assert found.top1 == pytest.approx(said.top1, abs=1e-6)
    assert cut.after.macs <= 0.6 * cut.before.macs


def test_int8_is_gated_by_what_the_judge_loses(cut, photos, tmp_path):
    step = quantize(cut.out, data=photos, out=tmp_path / "int8")
    assert step.before.val.top1 == cut.after.val.top1
    assert step.record["metrics"]["after"]["val"]["n"] == 8
    with pytest.raises(DataError, match="was trained on all images of"):
        evaluate(step.out, photos)


def test_interrupted_it_ends_with_the_same_bits(fitted, photos, tmp_path):
    """In the second training."""
    words = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    out = tmp_path / "m"
    command = [sys.executable, "-m", "transfer", "fit", str(photos), *words, "--epochs", "60", "--out", str(out)]
    whole = fit(photos, **{**SMALL, "epochs": 60})
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    partial, until = tmp_path / "m.partial" / CHECKPOINTS / "whole", time.monotonic() + 120
    while not (partial.is_dir() and any(partial.glob("step-*"))) and running.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 143
    subprocess.run([sys.executable, "-m", "compress", "resume", str(out)], check=True, stderr=subprocess.DEVNULL)
    loaded = load_model(out, judge=True)
    assert torch.equal(weights(loaded.model), weights(whole.model))
    assert torch.equal(weights(loaded.judge), weights(whole.judge))


def patient_fit(fitted, photos, progress):
    fit(photos, **{**SMALL, "epochs": 30}, settings={"patience": 2}, progress=progress)


def patient_prune(fitted, photos, progress):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.pruning.step.kept_of", lambda *given: Kept(1.0, {0.0: 1.0, 1.0: 0.5}, 8))
        prune(fitted.out, data=photos, macs=0.6, recover=30, patience=2, round_to=1, progress=progress)


def patient_distill(fitted, photos, progress):
    distill("lenet5", teacher=fitted.out, data=photos, epochs=30, patience=2, progress=progress)


@pytest.mark.parametrize(
    ("step", "title"), [(patient_fit, "scratch"), (patient_prune, "recovery"), (patient_distill, "distillation")]
)
def test_patience_of_the_judge_ends_both_trainings(fitted, photos, step, title):
    """The second has no validation images: it takes as many epochs as the judge was best after."""
    seen = []  # (steps done, of how many) of the two trainings
    step(fitted, photos, lambda what, done, steps, note: seen.append((done, steps)) if what == title else None)
    again = next(place for place, (done, _) in enumerate(seen) if place and done < seen[place - 1][0])
    (stopped, planned), (ended, asked) = seen[again - 1], seen[-1]
    epochs = stopped // (planned // 30)
    assert 2 < epochs < 30, "patience has ended it"
    assert ended == asked == (epochs - 2) * (asked // (epochs - 2))
    assert asked // (epochs - 2) in (2, 5), "steps of 40 images in batches of 32 or 8"


def test_where_the_second_training_fails_the_first_is_kept_and_said(photos, monkeypatch):
    def fails(task):
        raise CannotTrain("the memory is full")

    monkeypatch.setitem(refit.PLAIN, "scratch", fails)
    told = []
    fitted = fit(photos, **SMALL, tell=told.append)
    assert told[-1] == "not trained on the validation images: the memory is full"
    assert torch.equal(weights(fitted.model), weights(fitted.judge))
    assert len(fitted.lines()) == 1, "nothing is said of a training on all images"
