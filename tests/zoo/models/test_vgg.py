import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import VGG, cfgs, make_layers

import zoo

VARIANTS = ["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
CONFIGURATIONS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}  # Simonyan & Zisserman 2014, Table 1


def narrow(name: str, scale: int) -> nn.Module:
    """torchvision's network with every width divided, and the Linears' by 64."""
    configuration = [v if v == "M" else v // scale for v in cfgs[CONFIGURATIONS[name.removesuffix("_bn")]]]
    with torch.device("meta"):  # the wide Linears, which are replaced at once
        reference = VGG(nn.Identity(), num_classes=10, init_weights=False)
    reference.features = make_layers(configuration, batch_norm=name.endswith("_bn"))
    reference.classifier[0] = nn.Linear(512 // scale * 49, 64)
    reference.classifier[3] = nn.Linear(64, 64)
    reference.classifier[6] = nn.Linear(64, 10)
    return reference


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes_and_counts_are_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = zoo.create_model(name), torchvision.models.get_model(name)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert zoo.count_parameters(ours) == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    dropouts = {n: m.p for n, m in theirs.named_modules() if isinstance(m, nn.Dropout)}
    assert {n: m.p for n, m in ours.named_modules() if isinstance(m, nn.Dropout)} == dropouts


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn"])
def test_same_function_as_torchvision_narrow(name, assert_same_function):
    model = zoo.create_model(name, width=1 / 8, hidden=512, num_classes=10)
    assert_same_function(model, narrow(name, 8), (3, 70, 101))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_same_function_as_torchvision(name, assert_same_function):
    assert_same_function(zoo.create_model(name, hidden=64, num_classes=10), narrow(name, 1), (3, 70, 101))


def test_fresh_weights_are_torchvisions():
    torch.manual_seed(0)
    model = zoo.create_model("vgg11_bn", width=1 / 4)
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.detach().std() == pytest.approx((2 / (layer.out_channels * 9)) ** 0.5, rel=0.1)
            assert not layer.bias.any()
    for at in (0, 3, 6):
        assert model.classifier[at].weight.detach().std() == pytest.approx(0.01, rel=0.01)
        assert not model.classifier[at].bias.any()
