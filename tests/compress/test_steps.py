"""From one model directory to the next: prune, quantize, export, bench, report, as functions and as commands."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from compress.cli import app
from compress.deployment.export import network_of
from compress.graph.layers import integer_layers, macs_by_layer
from compress.pruning import latency
from compress.pruning.recover import recipe_after_cut
from compress.pruning.step import prune
from compress.quantization.step import BLAMED_FROM, quantize
from compress.recovery.recipe import mirrored_as_fitted
from transfer.fitting.step import fit
from zoo.errors import GateError, UsageError
from zoo.files.model_directory import read_config
from zoo.files.predictor import open_predictor
from zoo.image import load_image

run = CliRunner().invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """OUT/dense, fitted to digits; OUT/pruned and OUT/int8, made from it through the command line."""
    out = tmp_path_factory.mktemp("run")
    fit("digits", model="lenet5_caffe", method="scratch", epochs=3, out=out / "dense")
    for argv in (
        ["prune", out / "dense", "--data", "digits", "--macs", "0.5", "--recover", "1", "--out", out / "pruned"],
        ["quantize", out / "dense", "--data", "digits", "--max-drop", "3", "--out", out / "int8"],
        ["export", out / "dense"],
        ["export", out / "pruned"],
    ):
        done = run(app, [str(word) for word in argv])
        assert done.exit_code == 0, done.output
    return out


def newest(directory):
    return read_config(directory).lineage[-1]


def test_prune_has_its_effect_and_says_so(folder):
    (record,) = (r for r in read_config(folder / "pruned").lineage if r["verb"] == "prune")
    before, after = record["metrics"]["before"], record["metrics"]["after"]
    assert after["macs"] <= 0.5 * before["macs"]
    assert after["params"] < before["params"]
    assert after["val"]["top1"] > 0.8
    assert len(after["test"]["correct"]) == after["test"]["n"] == 359
    widths = {}
    for name in ("dense", "pruned"):
        with safe_open(folder / name / "model.safetensors", "numpy") as file:
            widths[name] = [file.get_slice(f"{layer}.weight").get_shape()[0] for layer in ("conv1", "conv2", "fc1")]
    dense, pruned = widths["dense"], widths["pruned"]
    assert dense == [20, 50, 500]
    assert pruned < dense
    assert all(now <= then for now, then in zip(pruned, dense, strict=True))
    c1, c2, f1 = pruned
    assert after["macs"] == c1 * 25 * 24**2 + c1 * c2 * 25 * 8**2 + c2 * 4**2 * f1 + f1 * 10  # counted by hand


def test_int8_is_near_and_a_quarter_of_the_size(folder):
    record = newest(folder / "int8")
    before, after = record["metrics"]["before"], record["metrics"]["after"]
    assert after["test"]["top1"] >= before["test"]["top1"] - 0.02
    assert after["size_bytes"] < 0.3 * (folder / "dense" / "model.onnx").stat().st_size
    assert record["int8_layers"] == [4, 4]
    assert min(record["divergence"].values()) < BLAMED_FROM
    assert record["ranking"] == []  # there is nothing to blame a layer for


def test_of_a_pruned_model_int8_has_both_effects(folder, tmp_path):
    """Half of the MACs are gone from the file, and the rest runs on integers, in fewer bytes than either alone."""
    quantize(folder / "pruned", data="digits", out=tmp_path / "both")
    networks = {
        name: network_of(folder / name / "model.onnx") if name != "both" else network_of(tmp_path / "both/model.onnx")
        for name in ("dense", "pruned", "int8", "both")
    }
    macs = {name: sum(macs_by_layer(network).values()) for name, network in networks.items()}
    assert macs["both"] == macs["pruned"] <= 0.5 * macs["dense"]
    assert integer_layers(networks["both"]) == macs_by_layer(networks["pruned"]).keys()
    sizes = {name: network.ByteSize() for name, network in networks.items()}
    assert sizes["both"] < min(0.5 * sizes["pruned"], sizes["int8"])
    record = newest(tmp_path / "both")
    assert record["metrics"]["after"]["macs"] == macs["both"]
    assert record["int8_macs"] == 1


def test_export_answers_as_the_directory_does(folder, tmp_path):
    picture = tmp_path / "seven.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 31, 3), dtype=np.uint8)).save(picture)
    pixels = load_image(picture)[None]
    torch_logits = open_predictor(folder / "dense").logits(pixels)
    onnx_logits = open_predictor(folder / "dense" / "model.onnx").logits(pixels)
    np.testing.assert_allclose(onnx_logits, torch_logits, atol=0.05 * torch_logits.std())
    record = newest(folder / "dense")
    assert record["verb"] == "export"
    assert record["parity"]["images"] == "real"
    assert record["parity"]["max_abs"] <= 1e-4 * record["parity"]["logits_std"]


@pytest.mark.parametrize("name", ["dense", "int8"])
def test_the_deployed_folder_runs_by_itself(folder, tmp_path, name):
    """On another machine there is nothing but this folder, onnxruntime, NumPy and Pillow."""
    shutil.copytree(folder / name / "deploy", tmp_path / "there")
    picture = tmp_path / "picture.jpg"  # which is decoded at a quarter of its size, here and there
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 310, 3), dtype=np.uint8)).save(picture)
    (tmp_path / "odd.png").write_bytes(b"not an image")
    command = [sys.executable, "-X", "importtime", str(tmp_path / "there" / "infer.py"), "odd.png", str(picture)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert "odd.png: not an image" in done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not any("onnxruntime" in line for line in done.stderr.splitlines() if "|" not in line)  # no warnings of its
    assert {"onnxruntime", "numpy", "PIL", "image"} <= imported
    assert not imported & {"torch", "onnx", "zoo", "transfer", "compress", "timm"}
    expected = json.loads(run(app, ["predict", str(folder / name / "model.onnx"), str(picture), "--json"]).stdout)
    said = "".join(f"  {each['label']} {each['score']:.1%}" for each in expected["predictions"][0]["top"])
    assert done.stdout == f"{picture}:{said}\n"


def test_inputs_are_left_alone(folder):
    """Only export adds to a directory, and it keeps the manifest true."""
    assert {p.name for p in (folder / "int8").iterdir()} == {
        "README.md",
        "config.json",
        "model.onnx",
        "MANIFEST.sha256",
        "deploy",
    }
    assert not list(folder.glob("*.partial"))
    for name in ("dense", "pruned", "int8"):
        read_config(folder / name)  # verifies every hash


def test_int8_directories_can_be_evaluated_but_not_changed(folder, tmp_path):
    done = run(app, ["eval", str(folder / "int8"), "digits", "--json"])
    assert json.loads(done.stdout)["top1"] == newest(folder / "int8")["metrics"]["after"]["test"]["top1"]
    with pytest.raises(UsageError, match="int8 ONNX model"):
        prune(folder / "int8", data="digits", out=tmp_path / "x")
    assert "is an ONNX model already" in str(run(app, ["export", str(folder / "int8")]).exception)


def test_an_exported_file_is_quantized_on_the_data_of_its_fit(folder, tmp_path):
    """With the same parts: what it was trained on may not test it."""
    record, step = newest(folder / "int8"), quantize(folder / "dense" / "model.onnx", data="digits", out=tmp_path / "x")
    assert [each["verb"] for each in step.config.lineage] == ["fit", "export", "quantize"]
    assert step.record["data"] == record["data"]
    assert step.record["metrics"]["before"]["test"]["correct"] == record["metrics"]["before"]["test"]["correct"]
    assert step.record["of"]["architecture"] == "lenet5_caffe"
    with pytest.raises(UsageError, match="int8 ONNX model"):
        prune(tmp_path / "x", data="digits", out=tmp_path / "y")


def test_gate(folder, tmp_path, monkeypatch):
    """A model that guesses after quantization is refused, and nothing is written."""
    from compress.quantization import nearest

    original = nearest.watch

    def ruined(network, tensors, images):
        return original(network, tensors, [batch * 1e-6 for batch in images])  # ranges that clip everything

    monkeypatch.setattr(nearest, "watch", ruined)
    said = r"int8 loses [0-9.]+ points on the val images, max_drop allows 1\.0; nothing was written; (most|keep)"
    with pytest.raises(GateError, match=said):
        quantize(folder / "dense", data="digits", max_drop=1.0, out=tmp_path / "int8")
    assert list(tmp_path.iterdir()) == []


def test_layers_stay_in_float_where_int8_loses_too_much(folder, tmp_path, monkeypatch):
    """One layer's weights are rounded to nothing: it is the one that goes back."""
    from compress.quantization import nearest
    from compress.quantization.rounding import Rounded, round_to_nearest

    def without_one(network, bits):
        found = round_to_nearest(network, bits)
        lost = found["conv2.weight"]
        return found | {"conv2.weight": Rounded(0 * lost.weight, lost.grid)}

    monkeypatch.setattr(nearest, "round_to_nearest", without_one)
    monkeypatch.setattr(nearest, "TO_BLAME", math.inf)  # else the rounding would be learned, and the layer come back
    step = quantize(folder / "dense", data="digits", max_drop=0.5, out=tmp_path / "int8")
    assert step.record["kept"] == ["conv2"]
    assert step.record["ranking"][0]["layer"] == "conv2"
    before, after = (step.record["metrics"][when]["val"]["top1"] for when in ("before", "after"))
    assert before - after <= 0.005
    assert step.quantized.int8_layers == step.quantized.layers - 1


def test_data_of_other_classes(folder, tmp_path):
    for name in ("cat", "dog"):
        for i in range(4):
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (i, i, len(name))).save(tmp_path / "pets" / name / f"{i}.png")
    with pytest.raises(UsageError, match="has 2 classes"):
        prune(folder / "dense", data=tmp_path / "pets", out=tmp_path / "x")
    with pytest.raises(UsageError, match="recover=0"):
        prune(folder / "dense", out=tmp_path / "x")


@pytest.mark.parametrize(("given", "expected"), [(None, True), (False, False), (True, True)])
def test_recovery_mirrors_as_the_fit_did(folder, given, expected):
    fitted = read_config(folder / "dense")
    fitted.lineage[0]["arguments"]["flip"] = given
    assert mirrored_as_fitted(fitted, default=True) is expected


@pytest.mark.parametrize(("method", "rate"), [("scratch", 9e-3), ("finetune", 3e-3), ("probe", 3e-3)])
def test_after_a_cut_a_network_learns_three_times_as_fast_as_in_its_fit(folder, method, rate):
    fitted = read_config(folder / "dense")
    fitted.lineage[0]["method"] = method
    recipe = recipe_after_cut(fitted, images=1001, mirror=False, epochs=1, seed=0)
    assert (recipe.lr, recipe.backbone_lr) == pytest.approx((rate, rate))
    assert not recipe.freeze_statistics


def test_few_images_change_a_pretrained_network_less(folder):
    fitted = read_config(folder / "dense")
    fitted.lineage[0]["method"] = "finetune"
    recipe = recipe_after_cut(fitted, images=1000, mirror=False, epochs=1, seed=0)
    assert recipe.lr == recipe.backbone_lr < 1e-3
    assert recipe.freeze_statistics


def test_explain_writes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "measured_ms", lambda models, size, threads, tick: np.ones(len(models)))
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "x"
    done = run(app, ["prune", str(folder / "dense"), "--macs", "0.5", "--explain", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "conv1[out]" in done.stdout
    assert not out.exists()


def test_bench_and_report(folder):
    models = [str(folder / name) for name in ("dense", "int8")]
    done = run(app, ["bench", *models, "--save", str(folder / "bench.json"), "--rounds", "3", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert {(row["model"], row["runtime"]) for row in rows if row["median_ms"]} >= {
        ("dense", "onnxruntime"),
        ("dense", "torch"),
        ("int8", "onnxruntime"),
    }
    done = run(app, ["report", str(folder)])
    assert done.exit_code == 0, done.output
    html = (folder / "report.html").read_text()
    assert all(name in html for name in ("dense", "pruned", "int8"))


def test_absent_models(tmp_path):
    assert "does not exist" in str(run(app, ["bench", str(tmp_path / "none")]).exception)
    assert "holds no models" in str(run(app, ["report", str(tmp_path)]).exception)
