import pytest
import timm
import torch
from timm.models.efficientnet import _gen_mobilenet_v1

import zoo


@pytest.mark.parametrize(
    "width", [1.0, 0.25, pytest.param(0.5, marks=pytest.mark.slow), pytest.param(0.75, marks=pytest.mark.slow)]
)
def test_same_function_as_timm(width, assert_same_function):
    reference = _gen_mobilenet_v1("mobilenetv1_100", width)
    assert_same_function(zoo.create_model("mobilenet_v1", width=width), reference, (3, 71, 64))


@pytest.mark.parametrize(
    ("width", "million_macs", "million_parameters"),
    [(1.0, 569, 4.2), (0.75, 325, 2.6), (0.5, 149, 1.3), (0.25, 41, 0.5)],  # Howard et al. 2017, Table 6
)
def test_papers_cost(width, million_macs, million_parameters):
    with torch.device("meta"):
        model = zoo.create_model("mobilenet_v1", width=width)
    assert round(zoo.count_macs(model, (3, 224, 224)) / 1e6) == million_macs
    assert round(zoo.count_parameters(model) / 1e6, 1) == million_parameters
    if width == 1.0:
        assert zoo.count_parameters(model) == 4_231_976  # timm's mobilenetv1_100


def test_fresh_weights_are_drawn_as_timms_are():
    """For 10 classes, where the classifier's range is far from PyTorch's own."""
    torch.manual_seed(3)
    ours = zoo.create_model("mobilenet_v1", num_classes=10).state_dict()
    for name, theirs in timm.create_model("mobilenetv1_100", num_classes=10).state_dict().items():
        if theirs.dim() > 1:
            error = theirs.numel() ** -0.5  # of the ratio of two sample deviations
            assert ours[name].std() == pytest.approx(theirs.std().item(), rel=4 * error), name
        else:
            assert torch.equal(ours[name], theirs), name
    largest = ours["classifier.weight"].abs().max().item()
    assert largest == pytest.approx(10**-0.5, rel=1e-3)  # uniform, not normal
