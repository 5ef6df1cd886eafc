"""ResNet (He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385).

resnext50_32x4d   ResNeXt (Xie et al. 2016, https://arxiv.org/abs/1611.05431): 3x3 convolutions of 32 groups.
wide_resnet50_2   Wide ResNet (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146): 3x3 convolutions that are
                  twice as wide; the blocks' outputs are as before.
resnet20 to 110   for 32 x 32 images (He et al. 2015, sec. 4.2).
drop_path         stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382).

Parameter names are torchvision's, so that its weights load as they are.

Differs from the papers:
- Bottlenecks are "V1.5": the stride sits on the 3x3 convolution, not on the first 1x1 (Goyal et al. 2017; torchvision).
- Where the width changes, resnet20 to 110 have 1x1 projections (option B); the paper pads with zero channels (option
  A). Padding ties channel i of one stage to channel i + constant of the next, so that a width could only be cut in both
  at once; the projections cost 2,752 parameters at any depth (1% of resnet20).
- Stochastic depth is drawn for each image, not for a whole batch, and what is kept is divided by its chance of being
  kept, where the paper multiplies by that in evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from zoo.models.layers import DropPath
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {
    "resnet18": {"stages": (1, 1), "width": 16, "num_classes": 10},
    "resnet50": {"stages": (1, 1), "width": 16, "num_classes": 10},
    "resnext50_32x4d": {"stages": (1, 1), "width": 16, "groups": 4, "group_width": 4, "num_classes": 10},
    "resnet20": {"stages": (1, 1), "width": 16, "num_classes": 10},
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (Fig. 5, left). (B, C, H, W) -> (B, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, *, stride: int, groups: int, group_width: int, drop_path: float
    ) -> None:
        super().__init__()
        if (groups, group_width) != (1, width):
            raise ValueError(f"{groups} groups of {group_width} in a block of {width}: only a Bottleneck has groups")
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.drop_path = DropPath(drop_path)
        self.downsample = _shortcut(in_channels, width, stride)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.drop_path(self.bn2(self.conv2(out)))
        out += self.downsample(x)
        return self.relu2(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width (Fig. 5, right). (B, C, H, W) -> (B, 4 width, H / stride, W / stride)."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, *, stride: int, groups: int, group_width: int, drop_path: float
    ) -> None:
        super().__init__()
        inner = groups * group_width
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(inner, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.drop_path = DropPath(drop_path)
        self.downsample = _shortcut(in_channels, width * self.expansion, stride)
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.drop_path(self.bn3(self.conv3(out)))
        out += self.downsample(x)
        return self.relu3(out)  # type: ignore[no-any-return]


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """A stem, stages of residual blocks that halve the image and double the width, average pooling, one Linear.

    Args:
        stages: the number of blocks in each stage.
        width: channels of the stem and of the first stage's blocks.
        groups, group_width: of a Bottleneck's 3x3 convolution: how many groups, and channels of each in the first
            stage, doubled with every stage; None is `width`.
        small_images: CIFAR's stem, one 3x3 convolution, in place of ImageNet's 7x7 of stride 2 and its max-pooling.
        drop_path: probability of skipping the last block's branch in training; that of block i of n is i / n of it
            (Huang et al. 2016, sec. 3, linear decay).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        *,
        stages: Sequence[int],
        width: int = 64,
        groups: int = 1,
        group_width: int | None = None,
        small_images: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        if small_images:
            self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, padding=1)
        self.stage_names = tuple(f"layer{s + 1}" for s in range(len(stages)))
        channels, done = width, 0
        for s, (name, repeats) in enumerate(zip(self.stage_names, stages, strict=True)):
            blocks = []
            for i in range(repeats):
                done += 1
                blocks.append(
                    block(
                        channels,
                        width * 2**s,
                        stride=2 if s > 0 and i == 0 else 1,
                        groups=groups,
                        group_width=(group_width or width) * 2**s,
                        drop_path=drop_path * done / sum(stages),
                    )
                )
                channels = width * 2**s * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # torchvision's, which counts the outputs of all groups; Linears keep PyTorch's own uniform draw
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stage_names:
            x = getattr(self, name)(x)
        x = self.flatten(self.avgpool(x))
        return self.fc(self.drop(x))  # type: ignore[no-any-return]


_bottlenecks50 = partial(ResNet, Bottleneck, stages=(3, 4, 6, 3))
_cifar = partial(ResNet, BasicBlock, width=16, small_images=True, num_classes=10)  # 6n + 2 layers, n blocks a stage

resnet18 = register_model("resnet18", partial(ResNet, BasicBlock, stages=(2, 2, 2, 2)))
resnet34 = register_model("resnet34", partial(ResNet, BasicBlock, stages=(3, 4, 6, 3)))
resnet50 = register_model("resnet50", _bottlenecks50)
resnet101 = register_model("resnet101", partial(ResNet, Bottleneck, stages=(3, 4, 23, 3)))
resnet152 = register_model("resnet152", partial(ResNet, Bottleneck, stages=(3, 8, 36, 3)))
resnext50_32x4d = register_model("resnext50_32x4d", partial(_bottlenecks50, groups=32, group_width=4))
wide_resnet50_2 = register_model("wide_resnet50_2", partial(_bottlenecks50, group_width=128))
resnet20 = register_model("resnet20", partial(_cifar, stages=(3, 3, 3)), input_size=(3, 32, 32))
resnet32 = register_model("resnet32", partial(_cifar, stages=(5, 5, 5)), input_size=(3, 32, 32))
resnet44 = register_model("resnet44", partial(_cifar, stages=(7, 7, 7)), input_size=(3, 32, 32))
resnet56 = register_model("resnet56", partial(_cifar, stages=(9, 9, 9)), input_size=(3, 32, 32))
resnet110 = register_model("resnet110", partial(_cifar, stages=(18, 18, 18)), input_size=(3, 32, 32))
