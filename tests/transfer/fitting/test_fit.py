"""`fit`, `eval` and `predict` as they are typed: one run on real digits, and everything that it leaves behind."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from transfer.data.dataset import open_data
from transfer.evaluation.evaluate import evaluate
from transfer.evaluation.images import Met
from transfer.fitting.start import start
from transfer.fitting.step import fit
from transfer.prediction import predict
from zoo.console import run
from zoo.errors import DataError, UsageError
from zoo.files.model_directory import load_model, read_config
from zoo.files.predictor import open_predictor

LENET = ["--model", "lenet5", "--method", "scratch"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("fit") / "digits"


@pytest.fixture(scope="module")
def fitted(out):
    """Two epochs of LeNet-5 on the digits, and what the command line said."""
    import contextlib
    import io

    from compress.cli import app

    handler, said, document = signal.getsignal(signal.SIGTERM), io.StringIO(), io.StringIO()
    arguments = ["fit", "digits", *LENET, "--epochs", "2", "--lr", "0.01", "--seed", "3", "--out", str(out), "--json"]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(document), pytest.raises(SystemExit) as done:
        run(app, "slimzoo", arguments)
    signal.signal(signal.SIGTERM, handler)
    assert done.value.code == 0, said.getvalue()
    return SimpleNamespace(out=document.getvalue(), err=said.getvalue())


def digit_pictures(folder, indices):
    """Digits as PNG files, and what they show."""
    bunch, paths = load_digits(), []
    for i in indices:
        paths.append(folder / f"{i}.png")
        Image.fromarray(np.round(bunch.images[i] * 255 / 16).astype(np.uint8)).save(paths[-1])
    return paths, [str(bunch.target[i]) for i in indices]


def test_json_is_one_document_on_stdout_and_people_read_stderr(fitted, out):
    document = json.loads(fitted.out)
    assert document["out"] == str(out)
    assert document["verb"] == "fit"
    assert document["metrics"]["after"]["params"] == 61_706  # LeNet-5 in its modern form
    assert document["metrics"]["after"]["macs"] == 416_520
    assert "Next:" in fitted.err
    assert f"slimzoo eval {out} digits" in fitted.err


def test_lineage_says_what_was_done(fitted, out):
    (record,) = read_config(out).lineage
    assert {**record, "out": str(out)} == json.loads(fitted.out)
    assert record["arguments"] == {
        "data": "digits",
        "model": "lenet5",
        "out": str(out),
        "method": "scratch",
        "epochs": 2,
        "size": None,
        "batch": None,
        "lr": 0.01,
        "flip": None,
        "settings": {},
        "val": None,
        "test": None,
        "seed": 3,
        "layout": "auto",
        "taps": True,
        "time_s": None,
        "tensorboard": False,
    }
    assert record["seed"] == 3
    assert record["data"]["name"] == "digits"
    assert record["data"]["fingerprint"] == open_data("digits").fingerprint()
    assert record["versions"]["torch"]
    assert record["metrics"]["before"] is None


def test_recorded_accuracy_is_the_models(fitted, out):
    data, loaded = open_data("digits"), load_model(out)
    after = read_config(out).lineage[-1]["metrics"]["after"]

    for part in ("val", "test"):
        indices = data.indices(part)
        pixels = np.stack([loaded.config.preprocess.resize(data.read(int(i))) for i in indices])
        with torch.no_grad():
            logits = loaded.model(torch.from_numpy(loaded.config.preprocess.normalize(pixels))).numpy()
        right = logits.argmax(1) == data.labels[indices]
        assert after[part]["n"] == len(indices)
        assert after[part]["correct"] == "".join("01"[int(r)] for r in right)
        assert after[part]["top1"] == pytest.approx(right.mean(), abs=1e-6)
        low, high = after[part]["top1_ci"]
        assert low < right.mean() < high
    assert after["test"]["top1"] > 0.5  # it learned something


def test_directory_holds_what_the_contract_lists(fitted, out):
    names = {"MANIFEST.sha256", "README.md", "config.json", "model.safetensors", "history.csv", "predictions.csv"}
    names |= {f"{picture}.png" for picture in ("confusion", "curves", "inputs", "mistakes", "reliability")}
    assert {p.name for p in out.iterdir()} == names
    assert not out.with_name("digits.partial").exists()
    config = json.loads((out / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("lenet5", 10)
    assert config["label_names"] == list("0123456789")
    assert config["slimzoo"]["format"] == 1
    assert config["slimzoo"]["surgery"] == []


def test_history_has_a_line_an_epoch(fitted, out):
    with (out / "history.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2"]
    assert float(lines[1]["train_loss"]) < float(lines[0]["train_loss"])
    after = read_config(out).lineage[-1]["metrics"]["after"]
    assert float(lines[1]["val_top1"]) == pytest.approx(after["val"]["top1"], abs=1e-6)


@pytest.mark.parametrize("name", ["curves.png", "confusion.png"])
def test_pictures_show_something(fitted, out, name):
    content = (out / name).read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # IHDR
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert min(width, height) > 300
    with Image.open(out / name) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_eval_uses_the_test_part_of_the_fit(fitted, out, slimzoo):
    done = slimzoo("eval", out, "digits", "--json")
    assert done.code == 0
    document, after = json.loads(done.out), read_config(out).lineage[-1]["metrics"]["after"]
    assert document["part"] == "test"
    assert {key: document[key] for key in after["test"]} == after["test"]
    data = open_data("digits")
    labels, right = data.labels[data.indices("test")], np.array(list(document["correct"])) == "1"
    for digit in range(10):
        assert document["per_class"][str(digit)]["recall"] == pytest.approx(right[labels == digit].mean(), abs=1e-4)


def test_eval_takes_other_data_whole_but_for_what_was_trained_on(fitted, out, tmp_path):
    """Digits as files, which the fit had as arrays."""
    _, labels = digit_pictures(tmp_path, range(40))
    for i, label in enumerate(labels):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / f"{i}.png").rename(tmp_path / label / f"{i}.png")
    parts = open_data("digits").parts[:40].tolist()
    held_out = evaluate(out, tmp_path)
    assert (held_out.evaluation.n, held_out.part) == (parts.count("test"), "test")
    assert held_out.left_out == Met(parts.count("train"), parts.count("val"))
    evaluated = evaluate(out, tmp_path, all=True)
    evaluation = evaluated.evaluation
    assert (evaluation.n, evaluated.part) == (40, "all")
    assert evaluation.confusion.sum() == 40
    assert evaluation.confusion.trace() == evaluation.correct.sum()
    files = sorted(tmp_path.rglob("*.png"))
    answers = [p.top[0][0] for p in predict(out, files)]
    assert [a == f.parent.name for a, f in zip(answers, files, strict=True)] == evaluation.correct.tolist()


def test_predict_gives_softmax_scores(fitted, out, slimzoo, tmp_path):
    paths, _ = digit_pictures(tmp_path, range(3))
    done = slimzoo("predict", out, *paths, "--top", "10", "--json")
    assert done.code == 0
    predictions = json.loads(done.out)["predictions"]
    assert [p["path"] for p in predictions] == [str(path) for path in paths]
    for prediction in predictions:
        scores = [entry["score"] for entry in prediction["top"]]
        assert sorted(scores, reverse=True) == scores
        assert sum(scores) == pytest.approx(1, abs=1e-3)
        assert {entry["label"] for entry in prediction["top"]} == set("0123456789")
    plain = slimzoo("predict", out, paths[0])
    assert plain.out.startswith(f"{paths[0]}: {predictions[0]['top'][0]['label']} ")
    assert plain.out.count("%") == 3


def test_exported_file_gives_the_same_answers(fitted, out, slimzoo, tmp_path):
    weights = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    done = slimzoo("export", out, "--json")
    assert done.code == 0, done.err
    assert hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest() == weights
    paths, _ = digit_pictures(tmp_path, range(30))
    by_torch, by_onnx = predict(out, paths, top=10), predict(out / "model.onnx", paths, top=10)
    for one, other in zip(by_torch, by_onnx, strict=True):
        assert dict(one.top) == pytest.approx(dict(other.top), abs=2e-3)
        assert one.top[0][0] == other.top[0][0]
    # and with pixels of another size than the network's, whatever resizes them
    pixels = np.random.default_rng(0).integers(0, 256, (2, 41, 33, 3), dtype=np.uint8)
    first, second = open_predictor(out).logits(pixels), open_predictor(out / "model.onnx").logits(pixels)
    assert np.abs(first - second).max() < 0.05 * first.std()
    assert [step["verb"] for step in load_model(out).config.lineage] == ["fit", "export"]
    # the file knows what it was fitted to: eval takes the same part, and finds the same
    one, other = (evaluate(source, "digits").evaluation for source in (out, out / "model.onnx"))
    assert (one.predictions == other.predictions).mean() > 0.99
    assert one.n == other.n


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit("digits", model="lenet5", method="scratch", epochs=1, seed=seed, out=tmp_path / name)
        found[name] = hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()
    assert found["a"] == found["b"] != found["c"]


def colour_folder(root, count=8):
    """Red and blue pictures, with noise."""
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 90, (20, 24, 3))
            pixels[..., channel] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_pretrained_backbone_tells_red_from_blue(tmp_path, method):
    data = colour_folder(tmp_path / "data")
    colourful = {"augment.colour": 0.0, "augment.grey": 0.0}  # colour is all that they differ in
    fitted = fit(
        data,
        method=method,
        size=32,
        epochs=6,
        batch=4,
        lr=1e-4,
        val=0,
        test=0.25,
        settings=colourful,
        out=tmp_path / method,
    )
    after = fitted.record["metrics"]["after"]
    assert "val" not in after
    assert after["test"]["top1"] == 1.0
    assert fitted.config.classes == ("blue", "red")
    assert fitted.config.preprocess.size == (32, 32)
    assert (tmp_path / method / "confusion.png").exists()
    assert (tmp_path / method / "history.csv").exists() == (method == "finetune")
    assert predict(tmp_path / method, [data / "red" / "0.png"])[0].top[0][0] == "red"


def test_fit_without_held_out_images_has_nothing_to_evaluate(tmp_path):
    data = colour_folder(tmp_path / "data", count=3)
    fit(data, model="resnet20", method="scratch", size=32, epochs=0, val=0, test=0, out=tmp_path / "m")
    with pytest.raises(DataError, match="was trained on all images of"):
        evaluate(tmp_path / "m", data)


def test_dry_run_says_what_would_happen_and_does_nothing(tmp_path, slimzoo):
    done = slimzoo("fit", "digits", *LENET, "--out", tmp_path / "m", "--dry-run", "--json")
    assert done.code == 0
    sizes = open_data("digits").sizes()
    assert json.loads(done.out) == {"dry_run": True, "classes": 10, **sizes}
    assert "would run scratch of lenet5 on digits" in done.err
    assert list(tmp_path.iterdir()) == []
    assert slimzoo("fit", "digits", "--model", "lenet6", "--out", tmp_path / "m", "--dry-run").code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "finetun"}, "unknown method 'finetun'; did you mean 'finetune'"),
        ({"model": "resnet81"}, "unknown model 'resnet81': did you mean 'resnet18'"),
        ({"model": "lenet5", "method": "finetune"}, "no pretrained weights on record for 'lenet5'; use method scratch"),
        ({"model": "segnet"}, "'segnet' is a dense model, and images with labels fit a classifier"),
        ({"model": "lstm", "method": "scratch"}, "'lstm' is a sequence model, and images with labels fit a classifier"),
        ({"lr": 0.0}, "lr=0.0: wanted a number above 0"),
        ({"val": "0.7", "test": "0.4"}, "leave something for training"),
    ],
)
def test_wrong_request_writes_nothing(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        fit("digits", **{"model": "lenet5", "method": "scratch", "out": tmp_path / "m", **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "size", "built_for"), [("timm:test_vit", 96, 96), ("timm:test_resnet", None, 64), ("vit_pico", None, 32)]
)
def test_a_model_of_a_fixed_size_is_built_for_it(tmp_path, model, size, built_for):
    fitted = fit("digits", model=model, method="scratch", epochs=0, size=size, out=tmp_path / "out")
    assert fitted.config.preprocess.size == (built_for, built_for)
    assert load_model(tmp_path / "out").config.input_size == (3, built_for, built_for)


@pytest.mark.parametrize(
    ("model", "size", "built_for"),
    [
        ("timm:vit_tiny_patch16_224", None, 224),  # a position for each patch
        ("timm:vit_tiny_patch16_224", 64, 64),
        ("torchvision:maxvit_t", None, 224),  # windows that must divide it
        ("timm:inception_v3", None, 299),  # too deep for 64 px
        ("torchvision:mobilenet_v3_small", None, 64),
    ],
)
def test_small_images_are_made_as_large_as_the_model_needs(model, size, built_for):
    network, config = start(model, open_data("digits"), "scratch", size, None)
    assert config.preprocess.size == (built_for, built_for)
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, built_for, built_for)).shape == (1, 10)


@pytest.mark.parametrize("model", ["torchvision:vit_b_16", "torchvision:maxvit_t", "alexnet"])
def test_a_size_that_a_model_does_not_take(tmp_path, model):
    with pytest.raises(UsageError, match=rf"{model} does not take size 32, its own is 224: "):
        fit("digits", model=model, method="scratch", size=32, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "timm:nope"], "timm has no model 'nope'"),
        (["--model", "torchvision:fcn_resnet50"], "only image classifiers"),
        (["--model", "lstm", "--method", "scratch"], "'lstm' is a sequence model"),
        (["--model", "resnet50", "--offline"], "not on this machine and downloads are forbidden; pretrained offline: "),
        (["--model", "timm:resnet18.nope"], "nope"),
        (["--model", "timm:deit_tiny_distilled_patch16_224"], "a model with one classifier is wanted"),
        (["--model", "timm:efficientnet_lite4"], "no pretrained weights on record"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_what_cannot_be_fitted_is_refused_before_anything_is_fetched(
    tmp_path, slimzoo, monkeypatch, arguments, message, dry
):
    monkeypatch.setenv("SLIMZOO_OFFLINE", "0")  # --offline sets it, and it is put back
    done = slimzoo("fit", "digits", *arguments, "--out", tmp_path / "out", *(["--dry-run"] if dry else []))
    assert done.code == 2
    assert message in done.err


def test_a_model_knows_its_data_from_any_folder(tmp_path, monkeypatch):
    """The held-out images stay held out, whatever the working folder and the spelling of the path."""
    data = colour_folder(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    fit("data", model="resnet20", method="scratch", size=32, epochs=0, val=0, test=0.25, out="m")
    monkeypatch.chdir(tmp_path.parent)
    for spelling in (data, tmp_path.name + "/data", str(data) + "/../data"):
        evaluated = evaluate(tmp_path / "m", spelling)
        assert (evaluated.part, evaluated.evaluation.n) == ("test", 4)


def test_images_that_were_held_out_and_are_gone_are_not_replaced_by_those_trained_on(tmp_path):
    data, rest = colour_folder(tmp_path / "data"), colour_folder(tmp_path / "rest", count=3)
    fit(data, model="resnet20", method="scratch", size=32, epochs=0, val=0, test=str(rest), out=tmp_path / "m")
    assert evaluate(tmp_path / "m", data).evaluation.n == 6
    rest.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="was trained on all images of"):
        evaluate(tmp_path / "m", data)
    found = evaluate(tmp_path / "m", tmp_path / "moved")
    assert found.evaluation.n == 3
    assert found.left_out == Met(3, 0), "three of them are copies of training images"


def test_prototypes_of_a_network_that_ends_in_a_convolution_keep_their_negative_logits(tmp_path):
    from transfer.data.dataset import open_data
    from transfer.data.loader import load_pixels
    from transfer.data.parts import Pixels
    from transfer.fitting.methods import prototype
    from transfer.fitting.task import Task
    from transfer.frozen.features import frozen_features
    from transfer.frozen.prototype import fit_prototype

    data = open_data(colour_folder(tmp_path / "data"), val=0, test=0)
    network, config = start("squeezenet1_1", data, "scratch", 64, None)
    train = load_pixels(data, config.preprocess, "train")
    task = Task(
        network=network,
        config=config,
        pixels=Pixels(train, None, None),
        recipe=None,
        find_lr=False,
        deadline=None,
        seed=0,
        checkpoints=tmp_path,
        progress=None,
        tell=print,
    )
    outcome = prototype(task)
    features = frozen_features(network, train, config.preprocess)
    expected = fit_prototype(features, train.labels, classes=2).logits(features)
    with torch.no_grad():
        found = outcome.model(torch.from_numpy(config.preprocess.normalize(np.asarray(train.pixels)))).numpy()
    np.testing.assert_allclose(np.diff(found), np.diff(expected), atol=1e-3)
