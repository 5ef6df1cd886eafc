"""Another activation or normalization, by name, in any model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.errors import UsageError
from zoo.models.layers import ACTIVATIONS, NORMS

FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "tanh": lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_lenet_with_another_activation(name):
    model, f = zoo.create_model("lenet5", activation=name).double(), FORMULAS[name]
    w, x = model.state_dict(), torch.randn(2, 1, 28, 28).double()
    out = F.max_pool2d(f(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=2)), 2)
    out = F.max_pool2d(f(F.conv2d(out, w["conv2.weight"], w["conv2.bias"])), 2)
    out = f(F.linear(out.flatten(1), w["fc1.weight"], w["fc1.bias"]))
    out = f(F.linear(out, w["fc2.weight"], w["fc2.bias"]))
    torch.testing.assert_close(model(x), F.linear(out, w["fc3.weight"], w["fc3.bias"]))


def test_every_activation_but_the_gates():
    model = zoo.create_model("mobilenet_v3_small", activation="tanh")
    gates = {name: m for name, m in model.named_modules() if isinstance(m, nn.Hardsigmoid | nn.Sigmoid)}
    assert gates
    assert all(name.endswith(".gate") for name in gates)
    assert not any(isinstance(m, nn.ReLU | nn.Hardswish) for m in model.modules())


@pytest.mark.parametrize("name", NORMS)
def test_resnet_with_another_norm_trains(name):
    model = zoo.create_model("resnet20", norm=name)
    kinds = {type(m) for m in model.modules()}
    assert (nn.BatchNorm2d in kinds) == (name == "batch")
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_layer_and_group_norm_are_their_formulas():
    x = torch.randn(2, 64, 5, 5).double()
    layer, group = NORMS["layer"](64).double(), NORMS["group"](64).double()
    mean, var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(layer(x), (x - mean) / (var + 1e-5).sqrt())
    pairs = x.view(2, 32, 2, 5, 5)  # 32 groups of two channels
    mean, var = pairs.mean((2, 3, 4), keepdim=True), pairs.var((2, 3, 4), keepdim=True, unbiased=False)
    torch.testing.assert_close(group(x), ((pairs - mean) / (var + 1e-5).sqrt()).view_as(x))
    assert NORMS["group"](6).num_groups == 6
    assert NORMS["group"](72).num_groups == 24


def test_without_batchnorm_vgg_is_the_vgg_without():
    ours = zoo.create_model("vgg11_bn", norm="none", width=0.1, num_classes=10)
    plain = zoo.create_model("vgg11", width=0.1, num_classes=10)
    tensors = dict(zip(ours.state_dict(), plain.state_dict().values(), strict=True))
    ours.load_state_dict(tensors, strict=True)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_without_batchnorm_a_convolution_gets_its_bias_back():
    model = zoo.create_model("resnet20", norm="none")
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) > 20
    assert all(conv.bias is not None and not conv.bias.any() for conv in convs)


def test_a_what_if_model_is_saved_and_loaded(tmp_path):
    from zoo.files.directory import new_directory
    from zoo.files.model_directory import ModelConfig, load_model, save_model
    from zoo.preprocess import Preprocess

    arguments = {"activation": "sigmoid", "norm": "group", "stages": [1, 1, 1]}
    model = zoo.create_model("resnet20", **arguments).eval()
    config = ModelConfig(
        architecture="resnet20", model_args=arguments, classes=None, preprocess=Preprocess(size=(32, 32))
    )
    with new_directory(tmp_path / "model", run={"verb": "test", "arguments": {}}) as work:
        save_model(work, model, config)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(load_model(tmp_path / "model").model(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "rleu"}, "unknown activation 'rleu': did you mean 'relu'"),
        ({"norm": "bach"}, "unknown norm 'bach': did you mean 'batch'"),
        ({"norm": "group"}, "norm='group': LeNet5 has no BatchNorm whose place it could take"),
        ({"name": "lstm", "activation": "relu"}, "activation='relu': Recurrent has no activation whose place"),
        ({"name": "timm:mobilenetv1_100", "norm": "none"}, "norm='none': BatchNormAct2d does more than normalize"),
    ],
)
def test_what_cannot_be_replaced(arguments, message):
    with pytest.raises(UsageError, match=message), torch.device("meta"):
        zoo.create_model(**{"name": "lenet5", **arguments})


def test_batch_is_the_papers_batchnorm():
    with torch.device("meta"):
        norms = [m for m in zoo.create_model("mobilenet_v3_small", norm="batch").modules() if hasattr(m, "momentum")]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


def test_gates_of_torchvisions_models_stay():
    with torch.device("meta"):
        model = zoo.create_model("torchvision:efficientnet_b0", activation="tanh")
    assert sum(isinstance(m, nn.Sigmoid) for m in model.modules()) == 16
