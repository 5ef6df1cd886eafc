"""timm opens what slimzoo wrote, uncut, with the same logits; what it cannot open says why in timm's own error."""

import json

import pytest
import timm
import torch

import zoo
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, load_model, save_model
from zoo.files.timm_form import timm_form
from zoo.preprocess import Preprocess

NAMES = ("cat", "dog", "owl")


def shaken(model):
    """Its values moved away from where every initialization puts them, running statistics too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return model.eval()


def written(place, architecture, side=64, change=None, **arguments):
    model_args = {"num_classes": len(NAMES), **arguments}
    model = shaken(zoo.create_model(architecture, **model_args))
    if change is not None:
        change(model)
    grey = arguments.get("in_channels") == 1
    preprocess = Preprocess(size=(side, side), **({"mean": (0.5,), "std": (0.5,)} if grey else {}))
    config = ModelConfig(architecture=architecture, model_args=model_args, classes=NAMES, preprocess=preprocess)
    with new_directory(place, run={"verb": "test", "arguments": {}}) as work:
        save_model(work, model, config)
    return place


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("timm:test_resnet", {}),
        ("timm:test_resnet.r160_in1k", {"in_channels": 1}),
        ("timm:test_vit", {"img_size": 64}),
        ("timm:mobilenetv3_small_050", {}),
        ("resnet18", {}),
        ("tf_efficientnet_lite0", {"in_channels": 1, "dropout": 0.3}),
        ("mobilenet_v1", {}),
        ("vit_tiny", {"image_size": 64}),
        ("torchvision:resnet18", {}),
    ],
)
def test_timm_opens_ours_with_the_same_logits(tmp_path, architecture, arguments):
    place = written(tmp_path / "ours", architecture, **arguments)
    ours = load_model(place)
    theirs = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    x = torch.randn(2, *ours.config.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours.model(x))
    assert theirs.num_classes == len(NAMES)
    data = timm.data.resolve_data_config({}, model=theirs)
    assert tuple(data["input_size"]) == ours.config.input_size
    assert tuple(data["mean"]) == ours.config.preprocess.mean


def narrower(model):
    from zoo.tensors import replace_tensor_

    replace_tensor_(model.layer1[0].conv1, "weight", model.layer1[0].conv1.weight[:8])
    replace_tensor_(model.layer1[0].conv2, "weight", model.layer1[0].conv2.weight[:, :8])
    model.layer1[0].conv1.out_channels = model.layer1[0].conv2.in_channels = 8
    for name in ("weight", "bias", "running_mean", "running_var"):
        replace_tensor_(model.layer1[0].bn1, name, getattr(model.layer1[0].bn1, name)[:8])
    model.layer1[0].bn1.num_features = 8


@pytest.mark.parametrize(
    ("architecture", "arguments", "change", "why"),
    [
        ("resnet18", {}, narrower, "cut by slimzoo"),
        ("resnet18", {"taps": {"layer2": 128}}, None, "a classifier that sees several depths"),
        ("resnet18", {"activation": "silu"}, None, "activation, which timm has no argument for"),
        ("torchvision:efficientnet_b0", {}, None, "torchvision, which timm does not have, or with other names"),
        ("lenet5", {}, None, "lenet5"),
    ],
)
def test_what_timm_cannot_open_says_why(tmp_path, architecture, arguments, change, why):
    place = written(
        tmp_path / "ours",
        architecture,
        side=28 if architecture == "lenet5" else 64,
        change=change,
        **(arguments if architecture != "lenet5" else {"in_channels": 1}),
    )
    with pytest.raises(RuntimeError, match=f"Unknown model .*{why}"):
        timm.create_model(f"local-dir:{place}", pretrained=True)
    assert len(json.loads((place / "config.json").read_text(encoding="utf-8"))["slimzoo"]["timm"]) > 20
    x = torch.randn(1, *load_model(place).config.input_size)
    assert load_model(place).model(x).shape == (1, len(NAMES))


@pytest.mark.slow
def test_each_name_of_the_zoo_is_timms_with_the_same_tensors_or_none_of_timms():
    for name in zoo.list_models(kind="classifier"):
        known, arguments, why = timm_form(name, {"num_classes": 3}, cut=False, primary="model.safetensors")
        if why is not None:
            assert not timm.is_model(known), name
            continue
        with torch.device("meta"):
            ours, theirs = zoo.create_model(name, num_classes=3), timm.create_model(known, **arguments)
        shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in (ours, theirs)]
        assert shapes[0] == shapes[1], name


def test_directories_of_before_still_load(tmp_path):
    place = written(tmp_path / "ours", "resnet18", in_channels=1)
    document = json.loads((place / "config.json").read_text(encoding="utf-8"))
    document["model_args"] = document["slimzoo"].pop("model_args")  # as it was written then
    del document["slimzoo"]["timm"]
    assert document["model_args"] == {"num_classes": 3, "in_channels": 1}
    assert ModelConfig.from_json(document, place).model_args == document["model_args"]
