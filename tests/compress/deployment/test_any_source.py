"""Export and quantize what no `fit` wrote: ONNX files from elsewhere and models of timm's, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import softmax
from typer.testing import CliRunner

from compress.cli import app
from compress.quantization.step import quantize
from zoo.create import create_model
from zoo.errors import DataError, SlimzooError, UsageError
from zoo.files.description import read_preprocess
from zoo.files.model_directory import load_model, read_config
from zoo.files.predictor import open_predictor
from zoo.image import load_image
from zoo.preprocess import Preprocess
from zoo.pretrained.load import preprocess_of
from zoo.pretrained.weights import WEIGHTS

SIDE = 20
CLASSES = ("red", "blue", "green")  # not in the order of a folder's
PREPROCESS = Preprocess(
    size=(SIDE, SIDE), mode="crop", resize_to=24, interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3
)


def run(*argv):
    return CliRunner().invoke(app, [str(word) for word in argv])


def done(*argv):
    result = run(*argv)
    assert result.exit_code == 0, result.output or result.exception
    return result.output


def refused(*argv, kind=UsageError):
    """The line on which a command fails."""
    error = run(*argv).exception
    assert isinstance(error, kind), repr(error)
    assert "\n" not in str(error)
    return error.on_command_line()


def foreign():
    """Which colour is strongest, by a network that knows it: channel means through a BatchNorm, probabilities out."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(0, 0.05, (8, 3, 3, 3)).astype(np.float32)
    mixed[:3, :, 1, 1] += np.eye(3)
    fc = rng.normal(0, 0.02, (8, 3)).astype(np.float32)
    fc[:3] += 6 * np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]], np.float32)  # red, blue, green
    wide = np.concatenate([np.eye(8), rng.normal(0, 0.05, (248, 8))]).astype(np.float32).reshape(256, 8, 1, 1)
    back = np.concatenate([np.eye(8), np.zeros((8, 248))], axis=1).astype(np.float32).reshape(8, 256, 1, 1)
    stored = {
        "w": mixed,
        "wide": wide,
        "back": back,
        "fc": fc,
        "one": np.ones(8, np.float32),
        "half": np.full(8, 0.5, np.float32),
        "zero": np.zeros(8, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["data", "w"], ["c"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "one", "half", "zero", "one"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Conv", ["r", "wide"], ["v"]),
        helper.make_node("Conv", ["v", "back"], ["u"]),
        helper.make_node("GlobalAveragePool", ["u"], ["pooled"]),
        helper.make_node("Constant", [], ["flat"], value=numpy_helper.from_array(np.array([1, 8]))),
        helper.make_node("Reshape", ["pooled", "flat"], ["features"]),
        helper.make_node("MatMul", ["features", "fc"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["prob"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """colours.onnx with p.json and names.txt; photos/ in its classes, loose/ without any; OUT/float and OUT/int8."""
    here = tmp_path_factory.mktemp("place")
    onnx.save(foreign(), here / "colours.onnx")
    (here / "p.json").write_text(json.dumps(PREPROCESS.to_dict()))
    (here / "names.txt").write_text("\n".join(CLASSES) + "\n")
    rng = np.random.default_rng(1)
    for strongest, name in enumerate(("red", "green", "blue")):
        for i in range(30):
            picture = rng.integers(0, 150, (6, 7, 3))
            picture[..., strongest] += 60
            path = here / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).resize((40, 33)).save(path)
    (here / "loose").mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(here / "loose" / f"{i}.png")
    told = ("--preprocess", here / "p.json", "--classes", here / "names.txt")
    for name, argv in (("float", ["export"]), ("int8", ["quantize", "--data", here / "photos", "--max-drop", "3"])):
        said = done(argv[0], here / "colours.onnx", *argv[1:], "--out", here / "out" / name, *told)
        (here / f"{name}.said").write_text(said)
    return here


def probabilities_of(file, pixels):
    session = onnxruntime.InferenceSession(str(file))
    return session.run(["probabilities"], {"pixels": pixels[None]})[0][0]


def test_pixels_in_and_the_files_own_probabilities_out(place):
    """Against the file as it came, on tensors that Preprocess prepared."""
    original = onnxruntime.InferenceSession(str(place / "colours.onnx"))
    for path in sorted((place / "photos").rglob("*.png"))[::7]:
        pixels = load_image(path)
        prepared = PREPROCESS.normalize(PREPROCESS.resize(pixels)[None])
        expected = original.run(None, {"data": prepared})[0][0]
        np.testing.assert_allclose(probabilities_of(place / "out/float/model.onnx", pixels), expected, atol=0.02)
        logits = open_predictor(place / "out/float").logits(PREPROCESS.resize(pixels)[None])
        np.testing.assert_allclose(softmax(logits[0]), expected, atol=1e-5)


def test_what_became_of_the_file_is_said(place):
    said = (place / "float.said").read_text()
    for change in (
        "took the Softmax off",
        "made its batch of 1 any number",
        "converted from opset 11 to 20",
        "folded 1 Batch",
    ):
        assert f"{place / 'colours.onnx'}: {change}" in said
    assert "64 noise images" in said
    config = read_config(place / "out" / "float")
    assert (config.architecture, config.classes, config.preprocess) == ("onnx:colours", CLASSES, PREPROCESS)
    (record,) = config.lineage
    assert record["parity"]["max_abs"] <= 1e-4 * record["parity"]["logits_std"]
    assert record["metrics"]["after"]["params"] == 8 * 27 + 8 + 2 * 2048 + 24
    assert record["metrics"]["after"]["macs"] == SIDE**2 * (8 * 27 + 2 * 2048) + 24
    card = json.loads(
        onnxruntime.InferenceSession(place / "out/float/model.onnx").get_modelmeta().custom_metadata_map["slimzoo"]
    )
    assert (card["classes"], card["licence"]) == (list(CLASSES), None)


def test_accuracy_is_measured_where_the_classes_are_the_models(place):
    record = read_config(place / "out" / "int8").lineage[-1]
    before, after = (record["metrics"][when] for when in ("before", "after"))
    assert before["val"]["top1"] > 0.9  # so the labels are in the model's order, not the folder's
    assert after["val"]["top1"] > 0.9
    assert record["unmeasured"] is None
    assert record["int8_layers"] == [4, 4]
    assert "accuracy is not measured" not in (place / "int8.said").read_text()
    evaluated = json.loads(run("eval", place / "out" / "int8", place / "photos", "--json").stdout)
    assert evaluated["top1"] > 0.9


def test_both_directories_can_be_used_and_not_trained(place, tmp_path):
    picture = next((place / "photos" / "blue").iterdir())
    for name in ("float", "int8"):
        directory = place / "out" / name
        assert f"{picture}: blue" in done("predict", directory, picture).replace("  ", " ")
        infer = subprocess.run(
            [sys.executable, directory / "deploy" / "infer.py", picture], capture_output=True, text=True
        )
        assert (infer.returncode, infer.stderr) == (0, "")
        assert "blue" in infer.stdout.split()[1]
        for verb in (["prune", "--macs", "0.5"], ["cluster", "--bits", "4"]):
            told = refused(verb[0], directory, "--data", place / "photos", *verb[1:], "--out", tmp_path / "x")
            assert "ONNX model" in told
        assert "is an ONNX model already" in refused("export", directory)
        assert "ONNX model" in refused("export", directory, "--coded")
    assert "is quantized already" in refused(
        "quantize", place / "out" / "int8", "--data", place / "photos", "--out", tmp_path / "x"
    )


def test_the_float_directory_and_its_file_quantize_too(place, tmp_path):
    """They say themselves what their preprocessing is."""
    whole = read_config(place / "out" / "int8").lineage[-1]["metrics"]
    for source in (place / "out" / "float", place / "out" / "float" / "model.onnx"):
        step = quantize(source, data=place / "photos", out=tmp_path / source.name)
        assert step.record["metrics"]["after"]["val"]["correct"] == whole["after"]["val"]["correct"]
        assert step.config.classes == CLASSES
    told = refused("quantize", source, "--data", place / "photos", "--preprocess", place / "p.json", "--out", "x")
    assert "says that itself; leave --preprocess out" in told


def test_report_and_bench(place):
    done("bench", place / "out/float", place / "out/int8", "--rounds", "3", "--save", place / "out/bench.json")
    done("report", place / "out")
    table = (place / "out" / "report.md").read_text()
    (baseline,) = [line for line in table.splitlines() if line.startswith("| `float`")][:1]
    assert "fp32" in baseline
    assert "4.34 k" in baseline
    assert "slimzoo quantize colours.onnx" in table  # from the folder that holds the report
    (place / "out" / "bench.json").unlink()
    done("report", place / "out")
    assert "| `float` (baseline) | fp32 |" in (place / "out" / "report.md").read_text()


@pytest.mark.parametrize("data", ["loose", "other"])
def test_other_images_only_calibrate(place, tmp_path, data):
    if data == "other":  # one class, and not one of the model's
        (place / "other" / "pets").mkdir(parents=True)
        for i, path in enumerate(sorted((place / "loose").iterdir())):
            (place / "other" / "pets" / f"{i}.png").write_bytes(path.read_bytes())
    argv = ["quantize", place / "colours.onnx", "--data", place / data, "--preprocess", place / "p.json"]
    said = done(*argv, "--classes", place / "names.txt", "--out", tmp_path / "int8")
    theirs = {"loose": "has no classes", "other": "has 1 class (pets)"}[data]
    (line,) = [line for line in said.splitlines() if line.startswith("accuracy is not measured")]
    assert f"{place / data} {theirs}, the model 3 classes (red, blue, green)" in line
    record = read_config(tmp_path / "int8").lineage[-1]
    assert not {"val", "test"} & (record["metrics"]["before"].keys() | record["metrics"]["after"].keys())
    assert record["parity"]["n"] == 12
    assert record["parity"]["top1_agreement"] > 0.8
    told = refused(*argv, "--classes", place / "names.txt", "--max-drop", "1", "--out", tmp_path / "y")
    assert told.startswith(f"--max-drop 1 needs an accuracy, and {place / data} {theirs}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8"]


def test_classes_that_nobody_named(place, tmp_path):
    out = tmp_path / "float"
    done("export", place / "colours.onnx", "--preprocess", place / "p.json", "--out", out)
    assert "class 1" in done("predict", out, next((place / "photos" / "blue").iterdir()))
    assert "has no class names" in refused("eval", out, place / "photos")
    told = refused("quantize", out, "--data", place / "photos", "--max-drop", "1", "--out", tmp_path / "x")
    assert "the model classes that nobody has named" in told
    assert json.loads((out / "config.json").read_text())["num_classes"] == 3


def test_what_is_missing_or_too_much_is_said(place, tmp_path):
    file, p, names = (place / name for name in ("colours.onnx", "p.json", "names.txt"))
    out = ("--out", tmp_path / "x")
    assert "name it with --preprocess" in refused("export", file, *out)
    assert "name a new one with --out" in refused("export", file, "--preprocess", p)
    assert "name a new one with --out" in refused("export", "timm:resnet18")
    assert "to which export adds model.onnx" in refused("export", place / "out/float", *out)
    assert "none.onnx is not a file" in refused("export", tmp_path / "none.onnx", "--preprocess", p, *out)
    assert "has no config.json; wanted: a model directory" in refused("quantize", tmp_path, "--data", "digits", *out)
    assert "names.txt is a file; wanted: a model directory" in refused("quantize", names, "--data", "digits", *out)
    assert "did you mean 'resnet18" in refused("export", "timm:resnt18", *out)
    assert "did you mean 'resnet18'" in refused("export", file, "--preprocess", "resnt18", *out)
    assert "did you mean 'p.json'" in refused("export", file, "--preprocess", place / "q.json", *out)
    assert "takes 3x20x20, --preprocess lenet5_caffe prepares 1x28x28" in refused(
        "export", file, "--preprocess", "lenet5_caffe", *out
    )
    for text, said in (
        ("[1]", "holds no JSON object"),
        ("{", "is not JSON"),
        ('{"size": [20, 20]}', "does not say mode, inter"),
        (json.dumps({**PREPROCESS.to_dict(), "men": 1}), "unknown 'men'; did you mean 'mean'?"),
        (json.dumps({**PREPROCESS.to_dict(), "std": [0, 1, 1]}), "std above 0"),
        (json.dumps({**PREPROCESS.to_dict(), "mode": "center"}), "must be 'squash', 'crop', 'pad' or 'prepared'"),
        (json.dumps({**PREPROCESS.to_dict(), "size": "20"}), "--preprocess"),
    ):
        (tmp_path / "bad.json").write_text(text)
        assert said in refused("export", file, "--preprocess", tmp_path / "bad.json", *out)
    for name, text, said in (
        ("two.txt", "a\nb\n", "names 2 classes, the network answers with 3"),
        ("a.txt", "a\nb\na\n", "'a' stands there twice"),
        ("list.json", '{"a": 1}', "wanted a JSON list"),
        ("list.json", '["a", "b"]', "names 2 classes"),
    ):
        (tmp_path / name).write_text(text)
        assert said in refused("export", file, "--preprocess", p, "--classes", tmp_path / name, *out)
    assert not (tmp_path / "x").exists()


def test_preprocess_of_a_name_and_of_a_directory(place):
    assert read_preprocess("resnet20") == preprocess_of(WEIGHTS["resnet20"])
    assert read_preprocess("timm:resnet18") == Preprocess(
        size=(224, 224), resize_to=235, mode="crop", interpolation="bicubic"
    )
    assert read_preprocess(place / "out" / "float") == PREPROCESS
    assert read_preprocess(place / "out" / "float" / "config.json") == PREPROCESS


def test_calibration_images_that_are_no_use(place, tmp_path):
    """One line each, and nothing written."""
    argv = ["quantize", place / "out" / "float", "--out", tmp_path / "x", "--data"]
    (tmp_path / "empty").mkdir()
    assert "no images" in refused(*argv, tmp_path / "empty", kind=DataError)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.jpg").write_bytes(b"hello")
    error = run(*argv, tmp_path / "torn").exception
    assert (error.exit_code, "not an image" in str(error)) == (3, True)
    assert "no dataset" in refused(*argv, tmp_path / "nothing")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.partial").exists()


def test_a_model_of_timms(cache_on_hub, tmp_path):
    """Against timm's own module, on the same weights."""
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet").eval()
    with torch.no_grad():
        theirs.get_classifier().weight.mul_(20)
    cache_on_hub("test_resnet.r160_in1k", theirs.state_dict())
    images = tmp_path / "pets"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (200, 170, 3), dtype=np.uint8)).save(images / f"{i}.png")
    done("export", "timm:test_resnet", "--out", tmp_path / "out" / "float")
    out = tmp_path / "out" / "float"
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    deployed = {f"deploy/{name}" for name in ("bench.py", "image.py", "infer.py", "model.onnx", "on_openvino.py")}
    assert names == {"README.md", "config.json", "model.safetensors", "model.onnx", "MANIFEST.sha256", *deployed}
    config = read_config(out)
    assert (config.architecture, len(config.classes), config.preprocess.mode) == ("timm:test_resnet", 1000, "crop")
    pixels = load_image(images / "0.png")
    prepared = torch.from_numpy(config.preprocess.normalize(config.preprocess.resize(pixels)[None]))
    expected = theirs(prepared).detach().numpy()[0]
    logits = open_predictor(out / "model.onnx").logits(config.preprocess.resize(pixels)[None])[0]
    np.testing.assert_allclose(logits, expected, atol=1e-3 * expected.std())
    torch.testing.assert_close(load_model(out).model(prepared)[0].detach().numpy(), expected)
    np.testing.assert_allclose(
        probabilities_of(out / "model.onnx", pixels), softmax(expected), atol=0.05 * softmax(expected).max()
    )
    said = done("quantize", "timm:test_resnet", "--data", images, "--out", tmp_path / "out" / "int8")
    assert f"accuracy is not measured: {images} has no classes, the model 1000 classes (tench, goldfish, " in said
    record = read_config(tmp_path / "out" / "int8").lineage[-1]
    assert record["int8_layers"][0] == record["int8_layers"][1]
    assert record["metrics"]["before"]["params"] == sum(p.numel() for p in theirs.parameters())
    assert "--max-drop 1 needs an accuracy" in refused(
        "quantize", "timm:test_resnet", "--data", images, "--max-drop", "1", "--out", tmp_path / "x"
    )


def test_weights_that_are_nowhere(no_network, tmp_path):
    told = refused("export", "timm:resnet18", "--out", tmp_path / "x", kind=SlimzooError)
    assert "timm:resnet18" in told
    assert list(tmp_path.iterdir()) == []


def test_networks_and_files_agree_on_pixels_that_are_cut_already():
    """A graph that cuts out the centre gets what was cut out: it may not cut again."""
    from compress.deployment.export import finish, in_memory
    from compress.graph.network import export_network
    from zoo.files.model_directory import ModelConfig
    from zoo.files.predictor import TorchPredictor

    torch.manual_seed(0)
    model = create_model("resnet20", width=8, stages=(1, 1, 1), num_classes=3).eval()
    for size, resize_to in (((32, 32), 37), ((24, 32), 40)):
        preprocess = Preprocess(size=size, mode="crop", resize_to=resize_to)
        config = ModelConfig(architecture="resnet20", model_args={}, classes=None, preprocess=preprocess)
        exported = in_memory(finish(export_network(model, (3, *size)), config, None))
        pixels = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
        expected = TorchPredictor(model, preprocess, None).logits(pixels)
        np.testing.assert_allclose(exported.logits(pixels), expected, atol=1e-4 * expected.std())
