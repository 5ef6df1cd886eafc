import torch
import torchvision
from torch import nn

import zoo


def test_shapes_and_count_are_torchvisions():
    with torch.device("meta"):
        ours, theirs = zoo.create_model("alexnet"), torchvision.models.alexnet()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert zoo.count_parameters(ours) == torchvision.models.AlexNet_Weights.DEFAULT.meta["num_params"]


def test_same_function_as_torchvision(assert_same_function):
    with torch.device("meta"):
        reference = torchvision.models.alexnet(num_classes=10)
    narrow = [nn.Linear(9216, 64), nn.Linear(64, 64), nn.Linear(64, 10)]  # 58 of the 61 million parameters are here
    for at, layer in zip((1, 4, 6), narrow, strict=True):
        reference.classifier[at] = layer
    reference.features.to_empty(device="cpu")
    assert_same_function(
        zoo.create_model("alexnet", hidden=64, num_classes=10), reference, (3, 70, 300)
    )  # pools 1 x 8 to 6 x 6


def test_dropout_is_where_torchvision_has_it():
    with torch.device("meta"):
        ours, theirs = zoo.create_model("alexnet", dropout=0.3), torchvision.models.alexnet(dropout=0.3)
    assert dropouts(ours) == dropouts(theirs) == {"classifier.0": 0.3, "classifier.3": 0.3}


def dropouts(model):
    return {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
