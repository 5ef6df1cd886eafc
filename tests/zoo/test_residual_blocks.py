"""Residual blocks: found where other libraries' own flags say they are, and left out as if they added nothing."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from zoo.blocks import blocks_left_out, left_out, residual_blocks, without
from zoo.create import create_model

SIZE = (3, 64, 64)


def of_torchvision_resnet(module):
    return isinstance(module, torchvision.models.resnet.BasicBlock) and module.downsample is None


@pytest.mark.parametrize(
    ("make", "is_block"),
    [
        (torchvision.models.resnet18, of_torchvision_resnet),
        (torchvision.models.mobilenet_v2, lambda m: getattr(m, "use_res_connect", False)),
        (lambda: timm.create_model("tf_efficientnet_lite0"), lambda m: getattr(m, "has_skip", False)),
        (lambda: timm.create_model("convnext_atto"), lambda m: type(m).__name__ == "ConvNeXtBlock"),
        (
            lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3),
            lambda m: type(m).__name__ == "Block",
        ),
        (  # whose encoder adds a table to its input
            lambda: torchvision.models.VisionTransformer(64, 16, 2, 2, 16, 32),
            lambda m: type(m).__name__ == "EncoderBlock",
        ),
        (torchvision.models.densenet121, lambda m: False),
        (torchvision.models.vgg11, lambda m: False),
    ],
)
def test_they_are_those_that_say_so_themselves(make, is_block):
    model = make()
    assert residual_blocks(model, SIZE) == [name for name, module in model.named_modules() if is_block(module)]


def test_without_a_block_is_as_if_it_added_nothing():
    """Its last norm's scale and shift at zero (Goyal et al. 2017, arXiv 1706.02677, sec. 5.1)."""
    model = create_model("resnet20", num_classes=10).eval()
    size = (model.get_submodule("conv1").in_channels, 32, 32)
    names = residual_blocks(model, size)[1::2]
    images = torch.randn(4, *size)
    with torch.no_grad():
        short = without(model, names)(images)
        with left_out(model, names):
            assert torch.equal(model(images), short)
        whole = model(images)
        for name in names:
            *_, last = (m for m in model.get_submodule(name).modules() if isinstance(m, nn.BatchNorm2d))
            last.weight.zero_()
            last.bias.zero_()
        assert torch.allclose(model(images), short, atol=1e-6)
    assert not torch.allclose(whole, short)
    assert blocks_left_out(model, without(model, names)) == names


class Plus(nn.Module):
    """Adds its first input to what it makes of it, `shape` of whose channels it returns."""

    def __init__(self, channels=4, returned=4, *, weights=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1) if weights else nn.ReLU()
        self.returned = returned

    def forward(self, x, y=None):
        found = x + self.conv(x) + (0 if y is None else y)
        return found[:, : self.returned]


class Around(nn.Module):
    """Calls `inner` as `how` says."""

    def __init__(self, inner, how):
        super().__init__()
        self.stem, self.inner, self.head, self.how = nn.Conv2d(3, 4, 1), inner, nn.Linear(inner.returned, 2), how

    def forward(self, x):
        return self.head(self.how(self.inner, self.stem(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("inner", "how", "is_one"),
    [
        (Plus(), lambda inner, x: inner(x), True),
        (Plus(), lambda inner, x: inner(x, x), False),
        (Plus(), lambda inner, x: inner(x=x), False),
        (Plus(), lambda inner, x: inner(inner(x)), False),
        (Plus(returned=3), lambda inner, x: inner(x), False),
        (Plus(weights=False), lambda inner, x: inner(x), False),
    ],
)
def test_what_an_identity_cannot_stand_for_is_none(inner, how, is_one):
    model = Around(inner, how)
    found = residual_blocks(model, SIZE)
    assert found == (["inner"] if is_one else [])
    assert without(model, found)(torch.zeros(2, *SIZE)).shape == (2, 2)


class Reading(Around):
    """Reads what a block is made of."""

    def forward(self, x):
        return self.head(self.inner(self.stem(x)).mean((2, 3)) + self.inner.conv.weight.mean())


class Twice(Around):
    """Holds its block under two names."""

    def __init__(self):
        super().__init__(Plus(), lambda inner, x: inner(x))
        self.again = self.inner


class Cyclic(Around):
    """Makes a tensor of its own, which shapes alone cannot be added to."""

    def forward(self, x):
        return super().forward(torch.cat([x[:, :2], torch.zeros(len(x), 1, *x.shape[2:])], 1))


def test_a_block_that_is_asked_for_more_or_has_two_names_stays():
    assert residual_blocks(Reading(Plus(), None), SIZE) == []
    assert residual_blocks(Twice(), SIZE) == []


def test_a_network_that_cannot_be_run_by_shapes_alone_is_run():
    model = Cyclic(Plus(), lambda inner, x: inner(x))
    assert residual_blocks(model, SIZE) == ["inner"]
    assert not model.training or isinstance(model.inner, Plus), "the network itself is left alone"


def test_of_blocks_in_a_block_the_outer_one_is_named():
    class Nested(nn.Module):
        returned = 4

        def __init__(self):
            super().__init__()
            self.first, self.second = Plus(), Plus()

        def forward(self, x):
            return x + self.second(self.first(x))

    assert residual_blocks(Around(Nested(), lambda inner, x: inner(x)), SIZE) == ["inner"]
