import pytest
import torch
import torchvision
from torch import nn

import zoo
from zoo.classifier import classifier_name, reset_classifier_


@pytest.mark.parametrize(("aux_heads", "parameters"), [(False, 6_624_904), (True, 13_004_888)])
def test_shapes_and_counts_are_torchvisions(aux_heads, parameters):
    with torch.device("meta"):
        ours = zoo.create_model("googlenet", aux_heads=aux_heads)
        theirs = torchvision.models.googlenet(aux_logits=aux_heads, init_weights=False)
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]
    assert zoo.count_parameters(ours) == parameters
    dropouts = {n: m.p for n, m in theirs.named_modules() if isinstance(m, nn.Dropout)}
    assert {n: m.p for n, m in ours.named_modules() if isinstance(m, nn.Dropout)} == dropouts
    if not aux_heads:
        assert parameters == torchvision.models.GoogLeNet_Weights.DEFAULT.meta["num_params"]


@pytest.mark.parametrize("aux_heads", [False, True])
def test_same_function_as_torchvision(aux_heads, assert_same_function):
    reference = torchvision.models.googlenet(aux_logits=aux_heads, init_weights=False)
    assert_same_function(
        zoo.create_model("googlenet", aux_heads=aux_heads), reference, (3, 63, 80)
    )  # poolings round up, all four


def test_heads_answer_in_training_only():
    model = zoo.create_model("googlenet", width=0.09, num_classes=10, aux_heads=True)
    x = torch.randn(2, 3, 64, 64)
    ours = model.train()(x)
    theirs = torchvision.models.googlenet(aux_logits=True, init_weights=False, num_classes=10).train()(x)
    assert ours._fields == theirs._fields == ("logits", "aux_logits2", "aux_logits1")
    assert [logits.shape for logits in ours] == [(2, 10)] * 3
    assert isinstance(model.eval()(x), torch.Tensor)
    assert isinstance(zoo.create_model("googlenet", width=0.09).train()(x), torch.Tensor)


def test_a_fresh_classifier_takes_its_heads_along():
    model = zoo.create_model("googlenet", width=0.09, aux_heads=True).train()
    assert classifier_name(model) == "fc"
    reset_classifier_(model, 7)
    assert [logits.shape for logits in model(torch.randn(2, 3, 64, 64))] == [(2, 7)] * 3


def test_torchvisions_transform_input_is_another_preprocess():
    reference = torchvision.models.googlenet(aux_logits=False, init_weights=False, transform_input=True)
    pixels = torch.rand(2, 3, 5, 5)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inside = reference._transform_input((pixels - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(inside, (pixels - 0.5) / 0.5)


def test_fresh_weights_are_torchvisions():
    torch.manual_seed(0)
    model = zoo.create_model("googlenet", width=0.25)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.detach().std() == pytest.approx(0.01, rel=0.15)
    assert model.fc.bias.abs().max() > 0.03  # U(-a, a), a = 1 / 16
