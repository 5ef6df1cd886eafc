import itertools

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import zoo
from zoo.models import resnet
from zoo.models.layers import DropPath

TORCHVISION = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"]
FIRST_IS_FAST = [TORCHVISION[0], *(pytest.param(name, marks=pytest.mark.slow) for name in TORCHVISION[1:])]


@pytest.mark.parametrize("name", FIRST_IS_FAST)
def test_same_function_as_torchvision(name, assert_same_function):
    assert_same_function(zoo.create_model(name), torchvision.models.get_model(name), (3, 70, 64))


def small_bottlenecks() -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, of one block a stage, with groups of another width than ResNeXt-50's."""
    ours = resnet.ResNet(resnet.Bottleneck, stages=(1, 1, 1, 1), groups=4, group_width=6)
    return ours, torchvision.models.ResNet(Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=6)


def test_groups_are_torchvisions(assert_same_function):
    assert_same_function(*small_bottlenecks(), (3, 70, 64))


def published(name: str) -> dict[str, float]:
    return torchvision.models.get_model_weights(name).DEFAULT.meta


@pytest.mark.parametrize("name", TORCHVISION)
def test_published_parameters(name):
    with torch.device("meta"):
        assert zoo.count_parameters(zoo.create_model(name)) == published(name)["num_params"]


@pytest.mark.parametrize("name", FIRST_IS_FAST)
def test_published_macs(name):
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert round(zoo.count_macs(model, (3, 224, 224)) / 1e9, 3) == published(name)["_ops"]


def torchvisions_cifar(blocks: int) -> nn.Module:
    """torchvision's blocks in the order of He et al. 2015, sec. 4.2."""
    reference = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    reference.conv1, reference.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
    reference.maxpool = nn.Identity()
    reference.inplanes = 16
    reference.layer1 = reference._make_layer(BasicBlock, 16, blocks)
    reference.layer2 = reference._make_layer(BasicBlock, 32, blocks, stride=2)
    reference.layer3 = reference._make_layer(BasicBlock, 64, blocks, stride=2)
    reference.layer4 = nn.Identity()
    reference.fc = nn.Linear(64, 10)
    return reference


@pytest.mark.parametrize("depth", [20, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (32, 44, 56, 110))])
def test_cifar_nets_are_torchvisions_blocks_in_cifars_order(depth, assert_same_function):
    reference = torchvisions_cifar((depth - 2) // 6)  # 6n + 2 layers
    assert_same_function(zoo.create_model(f"resnet{depth}"), reference, (3, 32, 31))


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)  # He et al. 2015, Table 6
def test_cifar_nets_cost_two_projections_more_than_the_papers(depth, millions):
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    with torch.device("meta"):
        option_a = zoo.count_parameters(zoo.create_model(f"resnet{depth}")) - projections
    assert f"{option_a / 1e6:.2g}" == millions
    layers = 3 * 3 * 16 + sum(  # the stem, then 2n - 1 convolutions inside each stage and one into it
        9 * c * before + ((depth - 2) // 3 - 1) * 9 * c * c for before, c in ((16, 16), (16, 32), (32, 64))
    )
    norms = 2 * (16 + (depth - 2) // 3 * (16 + 32 + 64))
    assert option_a == 3 * layers - 2 * (layers - 3 * 3 * 16) + norms + 64 * 10 + 10


def test_fresh_weights_are_torchvisions():
    """Both draw in the same order: from one seed, the same bits."""
    for build_ours, build_theirs in (
        (lambda: zoo.create_model("resnet18"), torchvision.models.resnet18),
        (lambda: small_bottlenecks()[0], lambda: torchvision.models.ResNet(Bottleneck, [1] * 4, 1000, False, 4, 6)),
    ):
        torch.manual_seed(3)
        ours = build_ours().state_dict()
        torch.manual_seed(3)
        for name, theirs in build_theirs().state_dict().items():
            assert torch.equal(ours[name], theirs), name


def test_expected_depth_under_stochastic_depth():
    """Of 54 blocks, (3 * 54 - 1) / 4 stay on average when the last is kept half of the time (Huang et al. 2016)."""
    with torch.device("meta"):
        model = zoo.create_model("resnet110", drop_path=0.5)
    rates = [m.p for m in model.modules() if isinstance(m, DropPath)]
    assert len(rates) == 54
    assert rates[-1] == 0.5
    assert sum(1 - p for p in rates) == pytest.approx(40.25)
    assert {round(b - a, 9) for a, b in itertools.pairwise(rates)} == {round(0.5 / 54, 9)}


@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_skipped_block_is_its_shortcut(block, stride):
    layer = block(8 * block.expansion, 8, stride=stride, groups=1, group_width=8, drop_path=1 - 1e-9).train()
    x = torch.randn(4, 8 * block.expansion, 6, 6)
    skipped = layer(x)
    torch.testing.assert_close(skipped, layer.downsample(x).relu(), rtol=0, atol=0)
    assert not torch.allclose(layer.eval()(x), layer.downsample(x).relu())


def test_basic_blocks_have_no_groups():
    with pytest.raises(ValueError, match="2 groups of 4 in a block of 8: only a Bottleneck has groups"):
        resnet.ResNet(resnet.BasicBlock, stages=(1,), width=8, groups=2, group_width=4)
