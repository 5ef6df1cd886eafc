"""Every verb on models that were fitted elsewhere: timm's directories, and weights alone."""

from __future__ import annotations

import argparse
import json
import shutil
import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from zoo.errors import UsageError
from zoo.files.model_directory import load_model, read_config
from zoo.files.predictor import open_predictor
from zoo.files.state_file import fitted, read_state


def network():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return model.eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory, three):
    """A network as timm saves it and as training scripts do, and what the latter do not say."""
    here = tmp_path_factory.mktemp("elsewhere")
    model = network()
    shutil.copy(three, here / "three.npz")
    options = {"model_config": {"label_names": ["0", "1", "2"]}, "data_config": {"input_size": (3, 32, 32)}}
    timm.models.save_for_hf(model, str(here / "hf"), safe_serialization=True, **options)
    timm.models.save_for_hf(model, str(here / "bin"), safe_serialization=False)
    state = model.state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in wrapped.items()}
    files = {
        "plain.pth": state,
        "timm.pth.tar": {
            "state_dict": zeros,
            "state_dict_ema": wrapped,
            "args": argparse.Namespace(lr=0.1),
            "epoch": 3,
        },
        "average.pt": {"model_ema": {"n_averaged": torch.tensor(3), **wrapped}, "model": zeros},
        "compiled.pth": {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        "lightning.ckpt": {"state_dict": {f"net.model.{k}": v for k, v in state.items()} | {"loss.w": torch.ones(2)}},
        "inner.bin": {f"layer1._orig_mod.{k[7:]}" if k.startswith("layer1.") else k: v for k, v in state.items()},
    }
    for name, content in files.items():
        torch.save(content, here / name)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, here / "plain.safetensors")
    torch.save(model, here / "module.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is old, and there are files of it
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 32, 32)), here / "script.pt")
    (here / "names.txt").write_text("0\n1\n2\n", encoding="utf-8")
    said = {"size": [32, 32], "mode": "squash", "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    (here / "p.json").write_text(json.dumps(said), encoding="utf-8")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(here / "a.png")
    return here


@pytest.fixture(autouse=True)
def in_its_place(place, monkeypatch):
    monkeypatch.chdir(place)


DESCRIBED = ("--arch", "timm:test_resnet", "--preprocess", "p.json", "--classes", "names.txt")
FILES = ("plain.pth", "timm.pth.tar", "average.pt", "compiled.pth", "lightning.ckpt", "inner.bin", "plain.safetensors")


@pytest.mark.parametrize("file", FILES)
def test_weights_alone_answer_as_their_network(slimzoo, place, file):
    code, out, err = slimzoo("predict", file, "a.png", *DESCRIBED, "--json")
    assert code == 0, err
    pixels = torch.tensor(np.array(Image.open(place / "a.png")), dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        wanted = torch.softmax(network()((pixels / 255 - 0.5) / 0.5), 1)[0]
    scores = {each["label"]: each["score"] for each in json.loads(out)["predictions"][0]["top"]}
    assert scores == {str(i): pytest.approx(float(wanted[i]), abs=1e-4) for i in range(3)}


def test_timms_directory_answers_as_timm_does(place):
    x = torch.randn(2, 3, 32, 32)
    for name in ("hf", "bin"):
        theirs = timm.create_model(f"local-dir:{place / name}", pretrained=True).eval()
        for source in (place / name, f"timm:local-dir:{place / name}"):
            with torch.no_grad():
                torch.testing.assert_close(load_model(source).model(x), theirs(x), rtol=0, atol=0)
    config = read_config(place / "hf")
    assert (config.architecture, config.classes, config.input_size) == (
        "timm:test_resnet",
        ("0", "1", "2"),
        (3, 32, 32),
    )
    assert read_config(place / "bin").classes is None


def test_a_step_and_an_export_of_both(slimzoo, place):
    for source, more in (("hf", ()), ("plain.pth", DESCRIBED)):
        pruned, exported = f"{source[:2]}-pruned", f"{source[:2]}-exported"
        for verb in (
            ["prune", source, "--macs", "0.7", "--recover", "0", "--out", pruned],
            ["export", source, "--out", exported],
        ):
            code, _, err = slimzoo(*verb, *more)
            assert code == 0, (verb, err)
        config = read_config(place / pruned)
        assert [step["verb"] for step in config.lineage] == ["export", "prune"]
        assert config.lineage[0]["of"]["architecture"] == "timm:test_resnet"
        assert open_predictor(place / exported / "model.onnx").classes == ("0", "1", "2")
    assert slimzoo("export", "plain.pth", *DESCRIBED)[0] == 2  # nothing is added to the cache
    assert slimzoo("export", "hf")[0] == 2  # nor to what is not ours


@pytest.mark.slow
def test_every_verb_takes_both(slimzoo, place):
    data = ("--data", "three.npz")
    for source, more in (("hf", ()), ("plain.safetensors", DESCRIBED)):
        out = ("--out", f"{source[:2]}-made", "--overwrite")
        for verb in (
            ["info", source],
            ["eval", source, "three.npz"],
            ["prune", source, *data, "--macs", "0.7", "--recover", "1", *out],
            ["sparsify", source, *data, "--epochs", "1", *out],
            ["quantize", source, *data, *out],
            ["cluster", source, *data, "--explain"],
            ["distill", "resnet20", "--teacher", source, *data, "--epochs", "1", "--size", "32", *out],
            ["distill", source, "--teacher", "hf", *data, "--epochs", "1", *out],
            ["bench", source, "--rounds", "3", "--runtime", "torch"],
        ):
            code, said, err = slimzoo(*verb, *more)
            assert code == 0, (verb, err)
            assert "not measured" not in said, said


def test_a_fit_begins_with_somebody_elses_weights(slimzoo, place):
    code, _, err = slimzoo(
        "fit",
        "three.npz",
        "--model",
        "timm:local-dir:bin",
        "--method",
        "probe",
        "--no-taps",
        "--size",
        "32",
        "--out",
        "mine",
    )
    assert code == 0, err
    ours, theirs = load_model(place / "mine"), timm.create_model(f"local-dir:{place / 'mine'}", pretrained=True).eval()
    assert torch.equal(
        ours.model.state_dict()["layer1.0.conv1.weight"], network().state_dict()["layer1.0.conv1.weight"]
    )
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours.model(x))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["plain.pth"], ["holds weights alone", "--arch NAME", "--preprocess"]),
        (["plain.pth", "--arch", "timm:test_resnet"], ["--preprocess", "timm:NAME"]),
        (["module.pth", *DESCRIBED], ["a pickled timm.models.resnet.ResNet", "would run code", "state_dict()"]),
        (["script.pt", *DESCRIBED], ["more than weights", "TorchScript"]),
        (["plain.pth", "--arch", "resnet20", *DESCRIBED[2:]], ["do not fit", "missing", "unexpected", "another shape"]),
        (["none.pth", *DESCRIBED], ["none.pth does not exist"]),
        (["hf", "--arch", "resnet18"], ["--arch resnet18: hf says that itself"]),
        (["hf", "--classes", "names.txt"], ["--classes names.txt: hf says that itself"]),
        (["timm:local-dir:nowhere"], ["nowhere has no config.json"]),
        (["timm:hf-hub:me"], ["timm:hf-hub:OWNER/NAME"]),
        (["plain.pth", *DESCRIBED[:4], "--classes", "p.json"], ["--classes p.json", "JSON list"]),
    ],
)
def test_what_does_not_fit_is_one_line(slimzoo, argv, words):
    code, _, err = slimzoo("predict", argv[0], "a.png", *argv[1:])
    assert code == 2, err
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_the_hubs_cache_is_enough_and_without_it_a_line_says_so(no_network, slimzoo, place, tmp_path):
    code, _, err = slimzoo("predict", "timm:hf-hub:me/mine", "a.png")
    assert code == 2
    assert "is not in the hub's cache" in err
    assert "cannot be reached" in err
    folder = tmp_path / "hf" / "hub" / "models--me--mine"
    shutil.copytree(place / "hf", folder / "snapshots" / "0123")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123", encoding="utf-8")
    assert slimzoo("predict", "timm:hf-hub:me/mine", "a.png")[0] == 0


def test_the_longest_fit_is_the_prefix():
    wanted = {name: torch.zeros(2) for name in ("fc.weight", "conv.weight", "bn.num_batches_tracked")}
    state = {f"student.{name}": torch.ones(2) for name in ("fc.weight", "conv.weight")} | {
        "teacher.fc.weight": torch.ones(2)
    }
    assert fitted(state, wanted, what="it").keys() == {"fc.weight", "conv.weight"}
    with pytest.raises(UsageError, match=r"of 3 keys 1 do; 1 missing \(conv.weight\)"):
        fitted({"fc.weight": torch.ones(2)}, wanted, what="it")


def test_no_names_is_one_line(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(UsageError, match="holds no tensors by name"):
        read_state(tmp_path / "list.pth")
