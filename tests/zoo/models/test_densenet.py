import pytest
import torch
import torchvision
from torch import nn

import zoo
from zoo.models import densenet

VARIANTS = ["densenet121", "densenet161", "densenet169", "densenet201"]
FIRST_IS_FAST = [VARIANTS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS[1:])]


@pytest.mark.parametrize("name", FIRST_IS_FAST)
def test_same_function_as_torchvision(name, assert_same_function):
    assert_same_function(zoo.create_model(name), torchvision.models.get_model(name), (3, 70, 64))


def published(name: str) -> dict[str, float]:
    return torchvision.models.get_model_weights(name).DEFAULT.meta


@pytest.mark.parametrize("name", VARIANTS)
def test_published_parameters(name):
    with torch.device("meta"):
        assert zoo.count_parameters(zoo.create_model(name)) == published(name)["num_params"]


@pytest.mark.parametrize("name", FIRST_IS_FAST)
def test_published_macs(name):
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert round(zoo.count_macs(model, (3, 224, 224)) / 1e9, 3) == published(name)["_ops"]


def small(dropout: float = 0.0) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, two layers a block."""
    ours = densenet.DenseNet(stages=(2, 2, 2), growth=8, stem_width=16, num_classes=10, dropout=dropout)
    return ours, torchvision.models.DenseNet(8, (2, 2, 2), 16, drop_rate=dropout, num_classes=10)


def test_fresh_weights_are_torchvisions():
    """Both draw in the same order: from one seed, the same bits."""
    torch.manual_seed(3)
    ours = small()[0].state_dict()
    torch.manual_seed(3)
    reference = torchvision.models.DenseNet(8, (2, 2, 2), 16, num_classes=10)
    for name, theirs in reference.state_dict().items():
        assert torch.equal(ours[name], theirs), name


def test_dropout_is_torchvisions_drop_rate():
    ours, reference = small(dropout=0.3)
    ours.load_state_dict(reference.state_dict())
    x = torch.randn(4, 3, 64, 64)
    outputs = []
    for model in (ours, reference):
        torch.manual_seed(5)
        outputs.append(model.train()(x))
    torch.testing.assert_close(*outputs)
    torch.manual_seed(6)
    assert not torch.allclose(ours(x), outputs[0])
