"""`--method auto` and the methods without training, on a few real digits with real ImageNet weights."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from transfer.evaluation.evaluate import evaluate
from transfer.fitting.methods import METHODS, finetune_all
from transfer.fitting.step import fit
from transfer.prediction import predict
from transfer.training.recipe import STANDARD_RATES
from zoo.errors import SlimzooError, UsageError
from zoo.files.model_directory import load_model

ROOT = Path(__file__).parents[3]
SMALL = {"size": 32, "batch": 16}
DIVIDED = {"val": 0.2, "test": 0.2}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """25 images each of three digits, in noise; 15 train, 5 validate, 5 test."""
    bunch = load_digits()
    chosen = np.concatenate([np.flatnonzero(bunch.target == digit)[:25] for digit in (3, 5, 8)])
    path = tmp_path_factory.mktemp("data") / "three.npz"
    images = (bunch.images[chosen] * (255 / 16)).repeat(4, axis=1).repeat(4, axis=2)
    images = (images + np.random.default_rng(0).normal(0, 110, images.shape)).clip(0, 255).astype(np.uint8)
    np.savez(path, images=images, labels=bunch.target[chosen])
    return path


@pytest.fixture(scope="module")
def chosen(three, tmp_path_factory):
    told = []
    out = tmp_path_factory.mktemp("auto") / "out"
    fitted = fit(three, epochs=2, flip=False, **SMALL, **DIVIDED, out=out, tell=told.append)
    return fitted, told


def test_what_has_the_least_loss_on_validation_images_is_kept(chosen, three, tmp_path, monkeypatch):
    fitted, told = chosen
    notes = fitted.record["notes"]["auto"]
    assert [row["method"] for row in notes["methods"]] == ["prototype", "probe", "finetune"]
    assert notes["chosen"] == min(notes["methods"], key=lambda row: row["val_loss"])["method"]
    assert fitted.record["method"] == notes["chosen"]
    shown = {row["method"]: row for row in notes["methods"]}[notes["chosen"]]
    val = fitted.record["metrics"]["after"]["val"]
    assert val["top1"] == shown["val_top1"]
    assert val["nll"] == pytest.approx(shown["val_loss"], abs=1e-5), "what is written is calibrated"
    assert any(line.startswith("ok    first loss") for line in told), "the preflight is shown"
    assert told[-1] == f"auto: {notes['chosen']} is kept, which has the least loss"
    monkeypatch.setitem(METHODS, "finetune", finetune_all)  # whose result auto compares with the probe's itself
    alone = fit(three, method=notes["chosen"], epochs=2, flip=False, **SMALL, **DIVIDED, out=tmp_path / "alone")
    assert alone.record["metrics"] == fitted.record["metrics"], "auto gives what the method by itself gives"
    weights = [(place / "model.safetensors").read_bytes() for place in (fitted.out, alone.out)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("errors", "kept"), [(1.5, "finetune"), (3.0, "probe")])
def test_finetuning_is_kept_unless_another_is_clearly_ahead(errors, kept, three, tmp_path, monkeypatch):
    """The standard error of the 15 differences is planted: 1."""
    spread = np.resize([np.sqrt(15), -np.sqrt(15)], 14)  # and a 0: 14 squares of 15, over 14 and 15, are 1
    planted = iter((np.full(15, 9.0), np.full(15, 1.0), 1 + errors + np.append(spread, 0)))
    monkeypatch.setattr("transfer.fitting.auto.calibrated_losses", lambda found: next(planted))
    fitted = fit(three, epochs=1, flip=False, **SMALL, **DIVIDED, out=tmp_path / "out")
    assert fitted.record["method"] == kept


def test_what_is_kept_is_a_model_directory_like_any_other(chosen):
    fitted, _ = chosen
    test = fitted.record["metrics"]["after"]["test"]
    top1 = evaluate(fitted.out, fitted.record["arguments"]["data"]).evaluation.top1
    assert top1 == pytest.approx(test["top1"], abs=1e-6)  # six digits are recorded


def test_time_that_is_over_leaves_the_cheap_methods(three, tmp_path):
    told = []
    fitted = fit(three, **SMALL, **DIVIDED, time_s=0.01, out=tmp_path / "out", tell=told.append)
    rows = fitted.record["notes"]["auto"]["methods"]
    assert rows[2]["method"] == "finetune"
    assert re.fullmatch(r"no epoch of \d+ s fits into the rest of --time: .*", rows[2]["reason"])
    assert fitted.record["method"] in ("prototype", "probe")
    assert f"auto: no fine-tuning, {rows[2]['reason']}" in told
    assert not any(line.startswith(("ok ", "WARN")) for line in told), "the preflight took time for nothing"


def test_time_that_is_over_leaves_the_probe_where_nothing_can_be_compared(three, tmp_path):
    told = []
    fitted = fit(three, **SMALL, val=0, time_s=0.01, out=tmp_path / "out", tell=told.append)
    assert fitted.record["method"] == "probe"
    assert any(line.startswith("auto: probe instead, no epoch of ") for line in told)


def test_a_named_method_takes_the_epochs_that_fit(three, tmp_path):
    with pytest.raises(SlimzooError, match=r"fits into the rest of time_s: give it more time, .* or take method probe"):
        fit(three, **SMALL, **DIVIDED, method="finetune", time_s=0.01, out=tmp_path / "none")
    fitted = fit(
        three, **SMALL, **DIVIDED, method="scratch", settings={"epochs": 10_000}, time_s=10, out=tmp_path / "some"
    )
    assert 1 <= fitted.record["notes"]["recipe"]["epochs"] < 10_000
    assert fitted.record["seconds"] < 12


def test_training_that_fails_leaves_the_cheap_methods(three, tmp_path):
    told = []
    fitted = fit(three, **SMALL, **DIVIDED, epochs=1, lr=1e38, out=tmp_path / "out", tell=told.append)
    assert fitted.record["method"] in ("prototype", "probe")
    assert "became" in fitted.record["notes"]["auto"]["methods"][2]["reason"]


def test_nothing_is_trained_where_validation_has_no_mistake(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (40, 32, 32, 3), dtype=np.uint8)
    images[:20, ..., 0] += 180
    images[20:, ..., 2] += 180
    np.savez(tmp_path / "colours.npz", images=images, labels=np.repeat(["red", "blue"], 20))
    fitted = fit(tmp_path / "colours.npz", **SMALL, **DIVIDED, out=tmp_path / "out")
    assert fitted.record["notes"]["auto"]["methods"][2]["reason"] == "no validation image is wrong"
    assert fitted.record["metrics"]["after"]["test"]["top1"] == 1


def test_one_image_a_class_makes_prototypes(tmp_path):
    digits = load_digits()
    first = [int(np.flatnonzero(digits.target == digit)[0]) for digit in range(10)]
    images = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    np.savez(tmp_path / "one.npz", images=images[first], labels=digits.target[first])
    np.savez(tmp_path / "rest.npz", images=images[200:400], labels=digits.target[200:400])
    fitted = fit(tmp_path / "one.npz", val=0, test=str(tmp_path / "rest.npz"), **SMALL, out=tmp_path / "out")
    assert fitted.record["method"] == "prototype"
    assert fitted.record["metrics"]["after"]["test"]["top1"] > 0.4, "chance is 0.1"
    assert "taps" in fitted.config.model_args, "it sees several depths of the network"
    again = load_model(tmp_path / "out")
    assert again.config.model_args == fitted.config.model_args


def test_prototypes_are_nearest_class_means(three, tmp_path):
    """Against the definition: cosine to each class's mean of centred features, block by block."""
    from PIL import Image

    from transfer.data.dataset import open_data
    from transfer.data.loader import load_pixels
    from transfer.frozen.features import frozen_features

    fitted = fit(three, method="prototype", size=32, **DIVIDED, out=tmp_path / "out")
    loaded = load_model(tmp_path / "out")
    data = open_data(three, **DIVIDED)
    train, test = (load_pixels(data, loaded.config.preprocess, part) for part in ("train", "test"))
    features, queries = (frozen_features(loaded.model, part, loaded.config.preprocess) for part in (train, test))
    widths = [*loaded.config.model_args["taps"].values()]
    edges = np.cumsum(widths)
    scaled, asked = [], []
    for block, query in zip(np.split(features, edges, axis=1), np.split(queries, edges, axis=1), strict=True):
        length = np.linalg.norm(block - block.mean(0), axis=1).mean()
        scaled.append((block - block.mean(0)) / length)
        asked.append((query - block.mean(0)) / length)
    unit = [np.concatenate(part, axis=1) for part in (scaled, asked)]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in unit]
    means = np.stack([unit[0][train.labels == label].mean(0) for label in range(3)])
    expected = (unit[1] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    right = fitted.record["metrics"]["after"]["test"]["correct"]
    assert [int(c) for c in right] == (expected == test.labels).astype(int).tolist()
    Image.fromarray(np.array(test.pixels[0])).save(tmp_path / "one.png")
    assert predict(tmp_path / "out", [tmp_path / "one.png"])[0].top[0][0] == data.classes[expected[0]]


@pytest.mark.slow
def test_a_range_test_chooses_the_rate(three, tmp_path):
    fitted = fit(three, method="finetune", lr="find", epochs=1, flip=False, **SMALL, **DIVIDED, out=tmp_path / "out")
    notes = fitted.record["notes"]
    assert notes["recipe"]["lr"] == notes["range_test"]["suggestion"]
    assert notes["recipe"]["backbone_lr"] == pytest.approx(notes["recipe"]["lr"] / 2)


def test_settings_reach_the_recipe(three, tmp_path):
    settings = {"optimizer": "sgd", "augment.rotate_deg": 0.0, "patience": 1}
    fitted = fit(three, method="finetune", settings=settings, epochs=1, **SMALL, **DIVIDED, out=tmp_path / "out")
    recipe = fitted.record["notes"]["recipe"]
    assert (recipe["optimizer"], recipe["augment"]["rotate_deg"], recipe["patience"]) == ("sgd", 0.0, 1)
    assert recipe["lr"] == STANDARD_RATES["sgd"].at(16).lr
    with pytest.raises(UsageError, match="unknown setting"):
        fit(three, settings={"optimiser": "sgd"}, method="finetune", out=tmp_path / "other")


@pytest.mark.slow
def test_auto_that_is_killed_and_resumed_ends_with_the_same_bits(three, tmp_path):
    environment = {**os.environ, "SLIMZOO_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "transfer", "fit", str(three), "--size", "32", "--time", "10m", "--batch", "4"]

    def digest(out):
        return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()

    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, env=environment, cwd=ROOT, capture_output=True)
    process = subprocess.Popen(
        [*command, "--out", tmp_path / "killed"], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    checkpoints = tmp_path / "killed.partial" / "checkpoints"
    while not any(checkpoints.glob("step-*/state.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    plan = json.loads((checkpoints / "plan.json").read_text())
    assert plan["recipe"]["epochs"] > 1
    resume = [sys.executable, "-m", "compress", "resume", str(tmp_path / "killed")]
    subprocess.run(resume, check=True, env=environment, cwd=ROOT, capture_output=True)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def test_copies_are_on_one_side_of_the_probes_folds(tmp_path):
    """Noise, each image three times: nothing can be learned, and cross-validation says so."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8).repeat(3, axis=0)
    labels = np.arange(40).repeat(3) % 2
    np.savez(tmp_path / "noise.npz", images=images, labels=labels)
    fitted = fit(tmp_path / "noise.npz", method="probe", size=32, val=0, test=0, out=tmp_path / "out")
    assert fitted.record["notes"]["cross_validated_top1"] < 0.75


DESTRUCTIVE = {"lr": 0.05, "backbone_lr": 0.05, "least_rise": 1}


def test_finetuning_that_ends_below_its_probe_gives_the_probe_and_says_so(three, tmp_path):
    told = []
    settings = {"method": "finetune", "epochs": 1, "flip": False, **SMALL, **DIVIDED}
    kept = fit(three, **settings, settings=DESTRUCTIVE, out=tmp_path / "kept", tell=told.append)
    probe = fit(three, **{**settings, "method": "probe"}, out=tmp_path / "probe")
    found = kept.record["notes"]["val_top1"]
    assert found["finetune"] < found["probe"], "or this shows nothing"
    assert kept.record["method"] == "probe"
    assert kept.record["metrics"]["after"] == probe.record["metrics"]["after"]
    assert (kept.out / "model.safetensors").read_bytes() == (probe.out / "model.safetensors").read_bytes()
    assert f"{found['finetune']:.1%} on validation images" in told[-1]
    assert "the probe is kept" in told[-1]


def test_a_single_short_epoch_stays_near_its_probe_and_says_what_nobody_could_compare(three, tmp_path):
    told = []
    given = {"epochs": 1, "flip": False, "val": 0.0, "test": 0.4, **SMALL}
    tops = {
        method: fit(three, method=method, **given, out=tmp_path / method, tell=told.append).record
        for method in ("probe", "finetune")
    }
    assert tops["finetune"]["method"] == "finetune"
    top1 = {method: record["metrics"]["after"]["test"]["top1"] for method, record in tops.items()}
    assert top1["finetune"] >= top1["probe"] - 0.1, "three steps; at full rates one class alone was answered"
    assert "without validation images" in told[-1]
