import pytest
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

import zoo


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_same_function_as_torchvision(name, parameters, assert_same_function):
    model = zoo.create_model(name)
    assert zoo.count_parameters(model) == parameters
    assert_same_function(model, torchvision.models.get_model(name), (3, 70, 64))


def test_resnet20_is_torchvisions_blocks_in_cifars_order(assert_same_function):
    reference = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    reference.conv1, reference.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
    reference.maxpool = nn.Identity()
    reference.inplanes = 16
    reference.layer1 = reference._make_layer(BasicBlock, 16, 3)
    reference.layer2 = reference._make_layer(BasicBlock, 32, 3, stride=2)
    reference.layer3 = reference._make_layer(BasicBlock, 64, 3, stride=2)
    reference.layer4 = nn.Identity()
    reference.fc = nn.Linear(64, 10)
    assert_same_function(zoo.create_model("resnet20"), reference, (3, 32, 32))


def test_resnet20_costs_two_projections_more_than_the_paper():
    option_a = 269_722  # He et al. 2015, Table 6: 0.27M
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert zoo.count_parameters(zoo.create_model("resnet20")) == option_a + projections
