"""MobileNet (Howard et al. 2017, "MobileNets: efficient convolutional networks...", https://arxiv.org/abs/1704.04861).

A 3x3 convolution is split into a depthwise one, which looks at one channel at a time, and a 1x1, which mixes channels:
8 to 9 times fewer products (sec. 3.1). Parameter names are timm's (mobilenetv1_100).

Differs from the paper: ReLU6 in place of ReLU, as in its authors' code (tensorflow/models, research/slim) and in timm;
PyTorch's padding, alike on both sides, where TensorFlow's is SAME; widths in multiples of 8.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.models.init import CONVOLUTIONS, he_normal_
from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

STEM_WIDTH = 32  # Table 1
# output channels c, repeats n, stride of the first s (Table 1, whose very last "s2" is a misprint: 7 x 7 stays 7 x 7)
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
TINY: dict[str, dict[str, object]] = {"mobilenet_v1": {"width": 0.1, "num_classes": 10}}


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3 and 1x1, each with norm and ReLU6 (Fig. 3). (B, C, H, W) -> (B, O, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_dw(x)))
        return self.act2(self.bn2(self.conv_pw(x)))  # type: ignore[no-any-return]


class MobileNetV1(nn.Module):
    """A 3x3 stem, 13 depthwise separable convolutions, average pooling, one Linear.

    Args:
        width: scales every channel count (alpha in the paper: 1, 0.75, 0.5, 0.25), rounded to a multiple of 8.
    """

    def __init__(
        self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = scaled_width(STEM_WIDTH, width, divisor=8)
        self.conv_stem = nn.Conv2d(in_channels, channels, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU6(inplace=True)
        stages = []
        for c, n, s in STAGES:
            out_channels = scaled_width(c, width, divisor=8)
            blocks = []
            for i in range(n):
                blocks.append(DepthwiseSeparable(channels, out_channels, stride=s if i == 0 else 1))
                channels = out_channels
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        he_normal_(self, kinds=CONVOLUTIONS, fan="out")
        bound = num_classes**-0.5  # timm's draw for a classifier, after tensorflow/tpu, models/official/efficientnet
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.act1(self.bn1(self.conv_stem(x)))
        x = self.flatten(self.global_pool(self.blocks(x)))
        return self.classifier(self.drop(x))  # type: ignore[no-any-return]


mobilenet_v1 = register_model("mobilenet_v1", MobileNetV1)
