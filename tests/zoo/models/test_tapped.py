"""A classifier over several depths: its features are those depths' means, and it travels like any other model."""

import numpy as np
import pytest
import torch

import zoo
from zoo.classifier import classifier, features
from zoo.errors import UsageError
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, load_model, save_model
from zoo.files.predictor import open_predictor
from zoo.models.registry import model_entry
from zoo.models.tapped import tap
from zoo.preprocess import Preprocess

FAMILIES = ("resnet18", "densenet121", "mobilenet_v2", "tf_efficientnet_lite0", "convnext_tiny", "vit_tiny", "vgg11")


def tiny(name, **options):
    return zoo.create_model(name, **(model_entry(name).tiny or {}), **options)


def tiny_pair(name):
    """The model, and the same weights behind taps."""
    torch.manual_seed(0)
    plain = tiny(name).eval()
    side = (model_entry(name).tiny or {}).get("image_size", 64)
    example = torch.randn(2, 3, side, side)
    taps = tap(plain, example[:1])
    tapped = tiny(name, taps=taps).eval()
    tapped.body.load_state_dict({k: v for k, v in plain.state_dict().items() if k in tapped.body.state_dict()})
    return plain, tapped, taps, example


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_means_of_the_stages_and_the_old_features(name):
    plain, tapped, taps, x = tiny_pair(name)
    outputs = {}
    for module in taps:
        plain.get_submodule(module).register_forward_hook(lambda _, i, o, module=module: outputs.update({module: o}))
    with torch.no_grad():
        last = features(plain, x)
        found = features(tapped, x)
    mean = {2: lambda o: o, 3: lambda o: o.mean(1), 4: lambda o: o.flatten(2).mean(2)}
    means = [mean[outputs[module].dim()](outputs[module]) for module in taps]
    torch.testing.assert_close(found, torch.cat([*means, last], dim=1), rtol=0, atol=0)
    assert taps, "no stage was tapped"


def test_a_tapped_model_is_saved_loaded_and_exported_like_any_other(tmp_path):
    pytest.importorskip("onnxruntime")
    from compress.deployment.export import export

    _, tapped, taps, x = tiny_pair("tf_efficientnet_lite0")
    arguments = {**model_entry("tf_efficientnet_lite0").tiny, "taps": taps}
    config = ModelConfig(
        architecture="tf_efficientnet_lite0", model_args=arguments, classes=None, preprocess=Preprocess(size=(64, 64))
    )
    with new_directory(tmp_path / "model", run={"verb": "fit", "arguments": {}}) as work:
        save_model(work, tapped, config)
    again = load_model(tmp_path / "model").model
    with torch.no_grad():
        torch.testing.assert_close(again(x), tapped(x), rtol=0, atol=0)
    export(tmp_path / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    exported, torchs = open_predictor(tmp_path / "model" / "model.onnx"), open_predictor(tmp_path / "model")
    np.testing.assert_allclose(exported.logits(pixels), torchs.logits(pixels), rtol=1e-3, atol=1e-4)


def test_a_tapped_model_trains_all_of_its_parameters():
    _, tapped, _, x = tiny_pair("resnet18")
    tapped.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tapped.parameters())
    assert classifier(tapped) is tapped.classifier


def test_a_model_that_ends_in_a_convolution_is_refused():
    with pytest.raises(UsageError, match="ends in a convolution"):
        tiny("squeezenet1_1", taps={"features": 1})
