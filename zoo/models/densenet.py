"""DenseNet (Huang, Liu, van der Maaten & Weinberger 2016, "Densely connected...", https://arxiv.org/abs/1608.06993).

The paper's DenseNet-BC for ImageNet (Table 1): bottlenecks of four times the growth, transitions that halve the width.
Parameter names are torchvision's.

Differs from the paper: `dropout` follows each dense layer's 3x3 convolution (torchvision's drop_rate), where the paper
has it after every convolution but the first, and only for small datasets without augmentation (sec. 4.2).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from zoo.models.init import CONVOLUTIONS, he_normal_
from zoo.models.registry import register_model

BOTTLENECK = 4  # outputs of a dense layer's 1x1 convolution, in units of the growth (sec. 3)
TINY: dict[str, dict[str, object]] = {
    "densenet121": {"stages": (2, 2), "growth": 8, "stem_width": 16, "num_classes": 10}
}


class DenseLayer(nn.Module):
    """BN-ReLU-1x1-BN-ReLU-3x3: `growth` new maps from all that came before. (B, C, H, W) -> (B, growth, H, W)."""

    def __init__(self, in_channels: int, *, growth: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(x)))
        return self.drop(self.conv2(self.relu2(self.norm2(x))))  # type: ignore[no-any-return]


class DenseBlock(nn.Module):
    """Each layer reads the block's input and all layers before it (eq. 2). (B, C, H, W) -> (B, C + n growth, H, W)."""

    def __init__(self, in_channels: int, *, layers: int, growth: int, dropout: float) -> None:
        super().__init__()
        for i in range(layers):
            layer = DenseLayer(in_channels + i * growth, growth=growth, dropout=dropout)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.children():
            maps.append(layer(torch.cat(maps, dim=1)))  # a copy, the first too: the layer's to overwrite
        return torch.cat(maps, dim=1)


def _transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """Between blocks: fewer channels, half the image. (B, C, H, W) -> (B, O, H / 2, W / 2)."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=nn.BatchNorm2d(in_channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(in_channels, out_channels, 1, bias=False),
            pool=nn.AvgPool2d(2, 2),
        )
    )


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between them, average pooling, one Linear.

    Args:
        stages: the number of layers in each dense block.
        growth: maps that each layer adds (k in the paper).
        stem_width: channels of the stem, 2 k in the paper.
    """

    def __init__(
        self,
        *,
        stages: Sequence[int],
        growth: int = 32,
        stem_width: int = 64,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.features = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv0=nn.Conv2d(in_channels, stem_width, 7, 2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(stem_width),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, 2, padding=1),
            )
        )
        channels = stem_width
        for s, layers in enumerate(stages, start=1):
            block = DenseBlock(channels, layers=layers, growth=growth, dropout=dropout)
            self.features.add_module(f"denseblock{s}", block)
            channels += layers * growth
            if s < len(stages):
                self.features.add_module(f"transition{s}", _transition(channels, channels // 2))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))  # torchvision's name, whatever the number of blocks
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes)
        he_normal_(self, kinds=CONVOLUTIONS)
        nn.init.zeros_(self.classifier.bias)  # its weight keeps PyTorch's own uniform draw

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.relu(self.features(x))
        return self.classifier(self.flatten(self.avgpool(x)))  # type: ignore[no-any-return]


densenet121 = register_model("densenet121", partial(DenseNet, stages=(6, 12, 24, 16)))
densenet161 = register_model("densenet161", partial(DenseNet, stages=(6, 12, 36, 24), growth=48, stem_width=96))
densenet169 = register_model("densenet169", partial(DenseNet, stages=(6, 12, 32, 32)))
densenet201 = register_model("densenet201", partial(DenseNet, stages=(6, 12, 48, 32)))
