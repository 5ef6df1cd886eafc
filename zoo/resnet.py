"""ResNet (He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385).

Parameter names are torchvision's, so that its weights load as they are.

Differs from the paper:
- resnet50 is "V1.5": the stride sits on the 3x3 convolution instead of the first 1x1 (Goyal et al. 2017; torchvision).
- resnet20's shortcuts that change the width are 1x1 projections (option B) where the paper pads with zero channels
  (option A). Padding ties channel i of one stage to channel i + constant of the next, so that a width could only be cut
  in both at once; the projections cost 2,752 parameters (1%).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from zoo.init import CONVOLUTIONS, he_normal_
from zoo.registry import register_model

TINY: dict[str, dict[str, object]] = {
    "resnet18": {"stages": (1, 1), "width": 8, "num_classes": 10},
    "resnet50": {"stages": (1, 1), "width": 8, "num_classes": 10},
    "resnet20": {"stages": (1, 1), "width": 8, "num_classes": 10},
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (Fig. 5, left). (B, C, H, W) -> (B, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.downsample(x))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width (Fig. 5, right). (B, C, H, W) -> (B, 4 width, H / stride, W / stride)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(in_channels, width * self.expansion, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu3(out + self.downsample(x))  # type: ignore[no-any-return]


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """A stem, stages of residual blocks that halve the image and double the width, average pooling, one Linear.

    Args:
        stages: the number of blocks in each stage.
        width: channels of the stem and of the first stage's blocks.
        small_images: CIFAR's stem, one 3x3 convolution, in place of ImageNet's 7x7 of stride 2 and its max-pooling.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        *,
        stages: Sequence[int],
        width: int = 64,
        small_images: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        if small_images:
            self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, padding=1)
        self.stage_names = tuple(f"layer{s + 1}" for s in range(len(stages)))
        channels = width
        for s, (name, repeats) in enumerate(zip(self.stage_names, stages, strict=True)):
            blocks = []
            for i in range(repeats):
                blocks.append(block(channels, width * 2**s, stride=2 if s > 0 and i == 0 else 1))
                channels = width * 2**s * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        he_normal_(self, kinds=CONVOLUTIONS, fan="out")  # torchvision's; Linears keep PyTorch's own

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stage_names:
            x = getattr(self, name)(x)
        x = self.flatten(self.avgpool(x))
        return self.fc(self.drop(x))  # type: ignore[no-any-return]


resnet18 = register_model("resnet18", partial(ResNet, BasicBlock, stages=(2, 2, 2, 2)))
resnet50 = register_model("resnet50", partial(ResNet, Bottleneck, stages=(3, 4, 6, 3)))
resnet20 = register_model(
    "resnet20",
    partial(ResNet, BasicBlock, stages=(3, 3, 3), width=16, small_images=True, num_classes=10),
    input_size=(3, 32, 32),
)
