import pytest
import torch
import torchvision
from torch import nn

import zoo
from zoo.models import mobilenet_v3

VARIANTS = ["mobilenet_v3_large", "mobilenet_v3_small"]


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("mobilenet_v3_small", 1.0),
        pytest.param("mobilenet_v3_large", 1.0, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_large", 0.75, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", 0.35, marks=pytest.mark.slow),
    ],
)
def test_same_function_as_torchvision(name, width, assert_same_function):
    reference = torchvision.models.get_model(name, width_mult=width)
    assert_same_function(zoo.create_model(name, width=width), reference, (3, 71, 64))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.25])  # Howard et al. 2019, Fig. 2
def test_widths_are_torchvisions(name, width):
    with torch.device("meta"):
        ours = zoo.create_model(name, width=width).state_dict()
        theirs = torchvision.models.get_model(name, width_mult=width).state_dict()
    assert {key: t.shape for key, t in ours.items()} == {key: t.shape for key, t in theirs.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_published_cost(name):
    published = torchvision.models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert zoo.count_parameters(model) == published["num_params"]
    assert round(zoo.count_macs(model, (3, 224, 224)) / 1e9, 3) == published["_ops"]


def test_fresh_weights_are_torchvisions():
    """Both draw in the same order: from one seed, the same bits."""
    torch.manual_seed(3)
    ours = zoo.create_model("mobilenet_v3_small", width=0.35, num_classes=10).state_dict()
    torch.manual_seed(3)
    reference = torchvision.models.mobilenet_v3_small(width_mult=0.35, num_classes=10)
    for name, theirs in reference.state_dict().items():
        assert torch.equal(ours[name], theirs), name


def test_another_activation_leaves_the_gates():
    tiny = mobilenet_v3.TINY["mobilenet_v3_small"]
    model = zoo.create_model("mobilenet_v3_small", activation="tanh", **tiny)
    left = [name for name, m in model.named_modules() if isinstance(m, nn.ReLU | nn.Hardswish | nn.Hardsigmoid)]
    assert len(left) == 9  # Howard et al. 2019, Table 2: nine blocks with squeeze-and-excite
    assert {name.rpartition(".")[2] for name in left} == {"gate"}
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()  # tanh's gradient reads an output that is not overwritten
