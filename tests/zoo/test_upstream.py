import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torchvision.transforms import CenterCrop, Normalize, Resize

import zoo
from zoo import upstream
from zoo.errors import SlimzooError, UsageError
from zoo.preprocess import Preprocess


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(upstream, "_reachable", lambda address: False)


def test_timms_module_itself():
    model = zoo.create_model("timm:test_resnet", num_classes=4, in_channels=1, drop_rate=0.1)
    reference = timm.create_model("test_resnet", num_classes=4, in_chans=1)
    assert type(model) is type(reference)
    assert list(model.state_dict()) == list(reference.state_dict())
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 4)
    assert upstream.input_size_of(model) == (1, 160, 160)
    assert upstream.preprocess_of(model).channels == 1
    assert zoo.create_model("timm:test_resnet").num_classes == 1000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet5", r"timm has no model 'resnet5': did you mean .*'resnet5"),
        ("timm:qqqq", r"timm has no model 'qqqq': see timm.list_models"),
        ("keras:resnet50", "unknown source 'keras' in 'keras:resnet50': 'timm:NAME' is the one there is"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UsageError, match=message):
        zoo.create_model(name)


def test_an_unknown_option():
    with pytest.raises(UsageError, match=r"timm:test_resnet: .*unexpected keyword argument 'depht'"):
        zoo.create_model("timm:test_resnet", depht=1)


def test_pretrained_offline_says_at_once_what_there_is(no_network, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(
        UsageError, match=r"timm:test_resnet are not on this machine.*offline: tf_efficientnet_lite0"
    ) as e:
        zoo.create_model("timm:test_resnet", pretrained=True)
    assert "\n" not in str(e.value)


def test_pretrained_with_an_unknown_tag(no_network):
    with pytest.raises(UsageError, match=r"timm:test_resnet.nonsense: .*nonsense"):
        zoo.create_model("timm:test_resnet.nonsense", pretrained=True)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "vit_tiny_patch16_224"])
def test_cached_weights_need_no_network(name, no_network, monkeypatch, tmp_path):
    reference = timm.create_model(name)
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    model = zoo.create_model(f"timm:{name}", pretrained=True)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), reference.state_dict().values(), strict=True)
    )
    assert "file" not in model.pretrained_cfg


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
