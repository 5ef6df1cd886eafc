import pytest
import torch
import torchvision

import zoo


@pytest.mark.parametrize(
    "width", [1.0, *(pytest.param(width, marks=pytest.mark.slow) for width in (0.35, 0.5, 0.75, 1.4))]
)
def test_same_function_as_torchvision(width, assert_same_function):
    reference = torchvision.models.mobilenet_v2(width_mult=width)
    assert_same_function(zoo.create_model("mobilenet_v2", width=width), reference, (3, 71, 64))


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])  # github.com/tensorflow/models, slim/nets/mobilenet
def test_widths_are_torchvisions(width):
    with torch.device("meta"):
        ours = zoo.create_model("mobilenet_v2", width=width).state_dict()
        theirs = torchvision.models.mobilenet_v2(width_mult=width).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}


def test_published_cost():
    published = torchvision.models.MobileNet_V2_Weights.DEFAULT.meta
    with torch.device("meta"):
        model = zoo.create_model("mobilenet_v2")
    assert zoo.count_parameters(model) == published["num_params"]
    assert round(zoo.count_macs(model, (3, 224, 224)) / 1e9, 3) == published["_ops"]


def test_fresh_weights_are_torchvisions():
    """Both draw in the same order: from one seed, the same bits."""
    torch.manual_seed(3)
    ours = zoo.create_model("mobilenet_v2", width=0.35, num_classes=10).state_dict()
    torch.manual_seed(3)
    for name, theirs in torchvision.models.mobilenet_v2(width_mult=0.35, num_classes=10).state_dict().items():
        assert torch.equal(ours[name], theirs), name


def test_narrow_ends_have_no_activation():
    """Linear bottlenecks (Sandler et al. 2018, sec. 3.2): what the blocks hand on is negative as often as not."""
    torch.manual_seed(3)
    model = zoo.create_model("mobilenet_v2", width=0.35).train()
    x = model.features[0](torch.randn(4, 3, 64, 64))
    assert x.min() >= 0
    for block in model.features[1:-1]:
        x = block(x)
        assert 0.3 < (x < 0).float().mean() < 0.7
