import pytest
import torch
import torchvision
from torch import nn

import zoo
from zoo.classifier import classifier_name, features


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert zoo.count_parameters(model) == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]


def test_the_papers_count():
    assert zoo.count_parameters(zoo.create_model("squeezenet1_0")) == 1_248_424  # Iandola et al. 2016, Table 1


def test_the_papers_sizes():
    model, sizes = zoo.create_model("squeezenet1_0", width=1 / 16), []
    for layer in model.features:
        layer.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    model(torch.zeros(1, 3, 227, 227))
    assert sizes == [111, 111, 55, 55, 55, 55, 27, 27, 27, 27, 27, 13, 13]  # Table 1


def test_1_1_costs_2_4_times_less():
    costs = [zoo.count_macs(zoo.create_model(name), (3, 224, 224)) for name in ("squeezenet1_0", "squeezenet1_1")]
    assert costs[0] / costs[1] == pytest.approx(2.4, abs=0.06)  # github.com/forresti/SqueezeNet


@pytest.mark.parametrize("name", [pytest.param("squeezenet1_0", marks=pytest.mark.slow), "squeezenet1_1"])
def test_same_function_as_torchvision(name, assert_same_function):
    assert_same_function(zoo.create_model(name), torchvision.models.get_model(name), (3, 70, 65))  # poolings round up


def test_the_classifier_is_the_last_convolution():
    model = zoo.create_model("squeezenet1_1", width=1 / 4).eval()
    assert classifier_name(model) == "classifier.1"
    assert features(model, torch.randn(2, 3, 64, 64)).shape == (2, 128)


def test_fresh_weights_are_torchvisions():
    torch.manual_seed(0)
    model = zoo.create_model("squeezenet1_1")
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            std = (
                0.01 if name == "classifier.1" else (2 / layer.weight[0].numel()) ** 0.5
            )  # U(-a, a) with a^2 = 3 std^2
            assert layer.weight.detach().std() == pytest.approx(std, rel=0.1)
            assert not layer.bias.any()
