"""Upstream modules: timm's and torchvision's own, their caches, and what becomes of their preprocessing."""

import hashlib
import os
import subprocess
import sys
import threading
import warnings
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save
from timm.data import create_transform, resolve_data_config
from torchvision import models
from torchvision.transforms import CenterCrop, InterpolationMode, Normalize, Resize
from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

import zoo
from zoo.classifier import reset_classifier_
from zoo.errors import SlimzooError, UsageError
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, save_model
from zoo.files.rehearsal import rehearse
from zoo.preprocess import Preprocess
from zoo.pretrained import download, library_caches, upstream, upstream_torchvision
from zoo.tensors import load_tensors_

ROOT = Path(__file__).parents[3]


def cache_torchvision(tmp_path, monkeypatch, file, state):
    """Put random weights where torchvision keeps FILE; their hash is taken for the one that the name ends with."""
    path = tmp_path / "torch" / "hub" / "checkpoints" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    monkeypatch.setattr(download, "sha256", lambda path: path.stem.rpartition("-")[2])
    return path


def same_tensors(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", ["timm:lcnet_035", "torchvision:mnasnet0_5"])
def test_with_a_fresh_classifier_it_is_saved_and_loaded(name, tmp_path):
    """A classifier of a kind of timm's own; modules that refuse a state of which no version is known."""
    torch.manual_seed(0)
    model = zoo.create_model(name, num_classes=7)
    reset_classifier_(model, 7)
    config = ModelConfig(
        architecture=name, model_args={"num_classes": 7}, classes=tuple("abcdefg"), preprocess=Preprocess(size=(32, 32))
    )
    with new_directory(tmp_path / "x", run={}) as work:
        rehearse(work, model, config, {})
        save_model(work, model, config)
    found = zoo.load_model(tmp_path / "x").model
    assert same_tensors(model, found)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(x), found(x))


def test_a_state_is_read_by_its_modules_versions():
    """Wherever tensors come without them: weights of other classes, an average, a checkpoint, a file."""
    model = zoo.create_model("torchvision:mnasnet0_5", num_classes=3)
    tensors = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    load_tensors_(model, tensors)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        load_tensors_(model, dict(list(tensors.items())[1:]))


@pytest.mark.parametrize(
    ("name", "upstream_name", "plain"),
    [
        ("timm:resnet50", True, "resnet50"),
        ("torchvision:resnet50.IMAGENET1K_V1", True, "resnet50.IMAGENET1K_V1"),
        ("resnet50", False, "resnet50"),
        (Path("runs/timm:x"), False, "runs/timm:x"),
        ("timm", False, "timm"),
        ("keras:resnet50", False, "keras:resnet50"),
    ],
)
def test_which_names_are_upstream(name, upstream_name, plain):
    assert upstream.is_upstream(name) == upstream_name
    assert upstream.known_as(str(name)) == plain


def test_timms_module_itself():
    model = zoo.create_model("timm:test_resnet", num_classes=4, in_channels=1, drop_rate=0.1)
    reference = timm.create_model("test_resnet", num_classes=4, in_chans=1)
    assert type(model) is type(reference)
    assert list(model.state_dict()) == list(reference.state_dict())
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 4)
    assert upstream.input_size_of(model) == (1, 160, 160)
    assert upstream.preprocess_of(model).channels == 1
    assert zoo.create_model("timm:test_resnet").num_classes == 1000


def test_torchvisions_module_itself():
    model = zoo.create_model("torchvision:resnet18", num_classes=4, norm_layer=partial(torch.nn.BatchNorm2d, eps=0.1))
    reference = models.resnet18(num_classes=4)
    assert type(model) is type(reference)
    assert list(model.state_dict()) == list(reference.state_dict())
    assert model.bn1.eps == 0.1
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    assert upstream.input_size_of(model) == (3, 224, 224)
    assert zoo.create_model("torchvision:resnet18").fc.out_features == 1000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet5", r"timm has no model 'resnet5': did you mean .*'resnet5"),
        ("timm:qqqq", r"timm has no model 'qqqq': see timm.list_models"),
        ("torchvision:resnet19", r"torchvision has no model 'resnet19': did you mean 'resnet18'"),
        ("torchvision:qqqq", r"torchvision has no model 'qqqq': see torchvision.models.list_models"),
        ("torchvision:resnet50.V3", r"torchvision:resnet50 has no weights 'V3': IMAGENET1K_V1, IMAGENET1K_V2"),
        ("torchvision:vgg16.IMAGENET1K_FEATURES", "weights of features without a classifier"),
        ("torchvision:fcn_resnet50", "torchvision:fcn_resnet50 is a model for segmentation: only image classifiers"),
        ("torchvision:retinanet_resnet50_fpn", "is a model for detection: only image classifiers"),
        ("torchvision:r3d_18", "is a model for video: only image classifiers"),
        ("torchvision:quantized_resnet18", "is a model for quantization: only image classifiers in float"),
        ("keras:resnet50", "unknown source 'keras' in 'keras:resnet50': 'timm:NAME' and 'torchvision:NAME' are"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UsageError, match=message) as caught:
        zoo.create_model(name)
    assert "\n" not in str(caught.value)


def test_unknown_options():
    with pytest.raises(UsageError, match=r"timm:test_resnet: .*unexpected keyword argument 'depht'"):
        zoo.create_model("timm:test_resnet", depht=1)
    with pytest.raises(UsageError, match=r"torchvision:resnet18: .*unexpected keyword argument 'depht'"):
        zoo.create_model("torchvision:resnet18", depht=1)
    with pytest.raises(UsageError, match=r"torchvision:resnet18 takes 3 channels, not 1: torchvision has no argument"):
        zoo.create_model("torchvision:resnet18", in_channels=1)


# --- pretrained -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18"])
def test_pretrained_offline_says_at_once_what_there_is(name, no_network, monkeypatch):
    for why in ("cannot be reached", "downloads are forbidden"):
        with pytest.raises(
            UsageError, match=rf"{name}.* are not on this machine and .*{why}; pretrained offline: .*lite0"
        ) as caught:
            zoo.create_model(name, pretrained=True)
        assert "\n" not in str(caught.value)
        monkeypatch.setenv("SLIMZOO_OFFLINE", "1")
        monkeypatch.setattr(download, "reachable", lambda address: pytest.fail("it asked the network"))


def test_pretrained_with_an_unknown_tag(no_network):
    with pytest.raises(UsageError, match=r"timm:test_resnet.nonsense: .*nonsense"):
        zoo.create_model("timm:test_resnet.nonsense", pretrained=True)


@pytest.mark.parametrize(
    ("name", "tag"),
    [("test_resnet", "r160_in1k"), ("test_vit", "r160_in1k"), ("vit_tiny_patch16_224", "augreg_in21k_ft_in1k")],
)
def test_timms_cached_weights_need_no_network(name, tag, cache_on_hub):
    reference = timm.create_model(name)
    cache_on_hub(f"{name}.{tag}", reference.state_dict())
    model = zoo.create_model(f"timm:{name}", pretrained=True)
    assert same_tensors(model, reference)
    assert "file" not in model.pretrained_cfg
    upstream.fetch(f"timm:{name}")


def test_a_damaged_file_of_the_hub_is_not_read(cache_on_hub):
    blob = cache_on_hub("test_resnet.r160_in1k", timm.create_model("test_resnet").state_dict())
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(SlimzooError, match=rf"has sha256 .*, not {blob.name[:12]}.*: damaged; delete it"):
        zoo.create_model("timm:test_resnet", pretrained=True)


@pytest.fixture
def hub(no_network, monkeypatch):
    """A hub that has one file, on this machine: content, the hash that it states, and what was asked of it."""
    state = {"content": save(timm.create_model("test_resnet").state_dict()), "stated": None, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            state["asked"].append(self.path)
            known = self.path == "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
            self.send_response(200 if known else 404)
            if known:
                self.send_header("ETag", f'"{state["stated"] or hashlib.sha256(state["content"]).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", str(len(state["content"])))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(state["content"])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "reachable", lambda address: True)
    yield state
    server.shutdown()
    thread.join()
    server.server_close()
    huggingface_hub.close_session()


def test_timms_weights_come_from_the_hub_once(hub, tmp_path, caplog, capfd):
    model = zoo.create_model("timm:test_resnet", pretrained=True)
    assert save(model.state_dict()) == hub["content"]
    size = f"{len(hub['content']) / 1e6:.1f} MB"
    assert caplog.messages[0] == f"downloading timm/test_resnet.r160_in1k/model.safetensors ({size})"
    assert library_caches.hub_file("timm/test_resnet.r160_in1k", "model.safetensors").is_relative_to(tmp_path)
    assert set(hub["asked"]) == {"/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"}  # and no telemetry
    hub["asked"].clear()
    zoo.create_model("timm:test_resnet", pretrained=True)
    assert hub["asked"] == []


def test_another_file_than_the_hub_stated_is_removed(hub, tmp_path, capfd):
    hub["stated"] = "0" * 64
    with pytest.raises(SlimzooError, match=r"not 000000000000.*: the hub gave another file; it was removed"):
        zoo.create_model("timm:test_resnet", pretrained=True)
    assert library_caches.hub_file("timm/test_resnet.r160_in1k", "model.safetensors") is None


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18-f37072fd.pth"),
        ("mobilenet_v3_large.IMAGENET1K_V1", "mobilenet_v3_large-8738ca79.pth"),  # not the default
        ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
    ],
)
def test_torchvisions_cached_weights_need_no_network(name, file, no_network, monkeypatch, tmp_path):
    reference = models.get_model(name.partition(".")[0])
    cache_torchvision(tmp_path, monkeypatch, file, reference.state_dict())
    model = zoo.create_model(f"torchvision:{name}", pretrained=True)
    assert same_tensors(model, reference)
    upstream.fetch(f"torchvision:{name}")
    other = zoo.create_model(f"torchvision:{name}", pretrained=True, num_classes=7)
    changed = [key for key, t in other.state_dict().items() if not torch.equal(t, reference.state_dict()[key])]
    assert changed == list(reference.state_dict())[-2:]  # the classifier alone
    assert other(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_torchvisions_file_is_checked_before_it_is_read(no_network, monkeypatch, tmp_path):
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    assert library_caches.checkpoints() == checkpoints
    checkpoints.mkdir(parents=True)
    path = checkpoints / "resnet18-f37072fd.pth"
    torch.save(models.resnet18().state_dict(), path)
    with pytest.raises(SlimzooError, match=r"resnet18-f37072fd.pth has sha256 .*, not f37072fd.* as recorded: damaged"):
        zoo.create_model("torchvision:resnet18", pretrained=True)
    cache_torchvision(tmp_path, monkeypatch, path.name, {"fc.weight": Path("not a tensor")})
    with pytest.raises(SlimzooError, match=r"f37072fd.pth cannot be read as tensors alone: "):
        zoo.create_model("torchvision:resnet18", pretrained=True)


def test_torchvisions_download_goes_to_its_own_folder(no_network, monkeypatch):
    calls = []
    monkeypatch.setattr(download, "reachable", lambda address: True)
    monkeypatch.setattr(download, "download", lambda *a, **k: calls.append((a, k)))
    upstream.fetch("torchvision:resnet18", progress=print)
    path = Path(torch.hub.get_dir(), "checkpoints", "resnet18-f37072fd.pth")
    assert calls == [((models.ResNet18_Weights.DEFAULT.url, path), {"sha256": "f37072fd", "progress": print})]


def test_every_file_of_torchvisions_classifiers_ends_with_its_hash():
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            digest = weights.url.removesuffix(".pth").rpartition("-")[2]
            assert len(digest) >= 8
            assert int(digest, 16)


# --- structure: a saved model loads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"), [("googlenet", "googlenet-1378be20.pth"), ("inception_v3", "inception_v3_google-0cc3c7bd.pth")]
)
def test_a_model_without_its_weights_is_built_like_the_pretrained_one(name, file, no_network, monkeypatch, tmp_path):
    """Both normalize their input inside, and GoogLeNet drops its auxiliary heads, when torchvision loads weights."""
    reference = models.get_model(name, init_weights=False)
    cache_torchvision(tmp_path, monkeypatch, file, reference.state_dict())
    pretrained = zoo.create_model(f"torchvision:{name}", pretrained=True)
    with warnings.catch_warnings(action="error"):
        fresh = zoo.create_model(f"torchvision:{name}")
    assert fresh.transform_input
    assert pretrained.transform_input
    assert (fresh.aux_logits, pretrained.aux_logits) == ((False,) * 2 if name == "googlenet" else (True,) * 2)
    fresh.load_state_dict(pretrained.state_dict(), strict=True)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), pretrained.eval()(x))
        fresh.transform_input = False
        assert not torch.equal(fresh(x), pretrained(x))  # the control
    with torch.device("meta"):
        fewer = zoo.create_model(f"torchvision:{name}", num_classes=5).train()
        assert ("aux" in str(list(fewer.state_dict())).lower()) == (name == "inception_v3")


def test_weights_of_another_resolution_build_their_own_structure():
    with torch.device("meta"):
        model = zoo.create_model("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1", num_classes=3)
        assert upstream.input_size_of(model) == (3, 384, 384)
        assert model.encoder.pos_embedding.shape[1] == 24**2 + 1
        small = zoo.create_model("torchvision:vit_b_16", image_size=96)
    assert upstream.input_size_of(small) == (3, 96, 96)
    assert upstream.preprocess_of(small) == upstream.recorded_preprocess("torchvision:vit_b_16").at(96)


def test_models_of_torchvisions_are_saved_and_loaded_in_a_fresh_process(tmp_path):
    expected = {}
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.save(x, tmp_path / "x.pt")
    for name in ("resnet18", "googlenet"):
        model = zoo.create_model(f"torchvision:{name}", num_classes=4).eval()
        config = ModelConfig(
            architecture=f"torchvision:{name}",
            model_args={"num_classes": 4},
            classes=tuple("abcd"),
            preprocess=upstream.preprocess_of(model).at(64),
        )
        with new_directory(tmp_path / name, run={"verb": "test", "arguments": {}}) as work:
            save_model(work, model, config)
        assert config.to_json()["architecture"] == name  # timm's key has no source
        with torch.no_grad():
            expected[name] = model(x)
    code = (
        "import torch, zoo; torch.set_num_threads(1); x = torch.load('x.pt'); "
        "torch.save({n: zoo.load_model(n).model(x).detach() for n in ('resnet18', 'googlenet')}, 'y.pt')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found = torch.load(tmp_path / "y.pt")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pretrained_model_is_opened_by_its_name(no_network, monkeypatch, tmp_path):
    torch.manual_seed(0)
    reference = models.resnet18()
    cache_torchvision(tmp_path, monkeypatch, "resnet18-f37072fd.pth", reference.state_dict())
    predictor = zoo.open_predictor("torchvision:resnet18")
    assert predictor.preprocess == upstream.recorded_preprocess("torchvision:resnet18")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = reference.eval()(torch.from_numpy(predictor.preprocess.normalize(pixels)))
    np.testing.assert_allclose(predictor.logits(pixels), expected, atol=1e-5)


# --- preprocessing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet50", "resnet50.IMAGENET1K_V1", "vit_b_16", "efficientnet_v2_s", "vit_l_16"])
def test_preprocess_is_torchvisions_own_transform(name):
    """On a smooth image whose short side is scaled by a whole number, where rounding has nothing to say."""
    base, _, tag = name.partition(".")
    known = models.get_model_weights(base)
    transforms = (known[tag] if tag else known.DEFAULT).transforms()
    ours = upstream.recorded_preprocess(f"torchvision:{name}")
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    assert (ours.size, ours.resize_to, ours.mode) == ((crop, crop), resize, "crop")
    assert ours.interpolation == transforms.interpolation.value
    rows, columns = np.mgrid[0 : 2 * resize, 0 : 4 * resize]
    image = np.stack([rows % 256, columns % 256, (rows + columns) // 4 % 256], axis=-1).astype(np.uint8)
    ours = ours.normalize(ours.resize(image)[None])[0]
    theirs = transforms(Image.fromarray(image)).numpy()
    assert np.abs(ours - theirs).max() < 2.5 / 255 / 0.224  # two levels of 256: Pillow rounds after each of two passes
    assert np.abs(ours - theirs).mean() < 0.3 / 255 / 0.224


def test_every_classifier_of_torchvisions_has_a_preprocess():
    recorded = [
        (f"torchvision:{name}.{weights.name}", weights)
        for name in models.list_models(module=models)
        for weights in models.get_model_weights(name)
        if weights.meta["categories"]
    ]
    assert len(recorded) > 100
    for name, weights in recorded:
        assert upstream.recorded_preprocess(name).mean == tuple(weights.transforms().mean)


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (partial(SemanticSegmentation, resize_size=520), "transforms SemanticSegmentation of .*: ImageClassification"),
        (partial(ImageClassification, crop_size=224, interpolation=InterpolationMode.NEAREST), "'nearest' of .*bilin"),
        (partial(ImageClassification, crop_size=224, antialias=False), "antialias=False of .*: True is wanted"),
        (partial(ImageClassification, crop_size=224, resize_size=200), "a crop to 224 px of 200 px of"),
    ],
)
def test_what_torchvision_says_and_preprocess_cannot_is_an_error(transforms, message):
    class Recorded:
        pass

    weights = Recorded()
    weights.transforms = transforms
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    model.torchvision_weights = weights
    with pytest.raises(SlimzooError, match=message):
        upstream_torchvision.preprocess_from(weights)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_b5", "tf_efficientnet_lite0"])
def test_preprocess_is_timms_own_transform(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    transforms = {type(t): t for t in create_transform(**resolve_data_config({}, model=model)).transforms}
    ours = upstream.preprocess_of(model)
    resize = transforms[Resize].size
    assert (ours.resize_to if ours.mode == "crop" else ours.size) == (
        resize if isinstance(resize, int) else tuple(resize)
    )
    assert ours.interpolation == transforms[Resize].interpolation.value
    assert ours.size == tuple(transforms[CenterCrop].size)
    assert ours.mean == pytest.approx(transforms[Normalize].mean.tolist())
    assert ours.std == pytest.approx(transforms[Normalize].std.tolist())


def test_a_bordered_image_is_filled_with_timms_mean():
    with torch.device("meta"):
        model = timm.create_model("test_resnet")
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "border", "crop_pct": 1.0, "mean": (0.5, 0.25, 0.0)}
    assert upstream.preprocess_of(model) == Preprocess(
        size=(160, 160),
        mode="pad",
        interpolation="bilinear",
        mean=(0.5, 0.25, 0.0),
        std=model.pretrained_cfg["std"],
        background=(128, 64, 0),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "lanczos"}, "interpolation 'lanczos'"),
        ({"crop_mode": "squash", "crop_pct": 0.9}, "crop mode 'squash' of 0.9"),
        ({"input_size": (3, 160, 96)}, "to 160x96"),
    ],
)
def test_what_cannot_be_converted_is_an_error(change, message):
    with torch.device("meta"):
        model = timm.create_model("test_resnet")
    model.pretrained_cfg = {**model.pretrained_cfg, **change}
    with pytest.raises(SlimzooError, match=message):
        upstream.preprocess_of(model)


def test_the_image_size_it_was_built_for():
    model = zoo.create_model("timm:test_vit", img_size=96)
    assert upstream.input_size_of(model) == (3, 96, 96)
    assert upstream.preprocess_of(model).size == (96, 96)
    with pytest.raises(TypeError, match="LeNet5 has no pretrained_cfg"):
        upstream.input_size_of(zoo.create_model("lenet5"))
