"""MobileNetV2 (Sandler et al. 2018, "Inverted residuals and linear bottlenecks", https://arxiv.org/abs/1801.04381).

Blocks widen, filter depthwise and narrow again; the narrow ends carry the shortcut and have no activation. Parameter
names are torchvision's.

Differs from the paper: the classifier is a Linear after pooling, not a 1x1 convolution, which is the same function;
PyTorch's padding, alike on both sides, where TensorFlow's is SAME.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.models.init import he_normal_of_all_groups_
from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

STEM_WIDTH = 32  # Table 2
# expansion t, output channels c, repeats n, stride of the first s (Table 2)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
TINY: dict[str, dict[str, object]] = {"mobilenet_v2": {"width": 0.1, "head_width": 64, "num_classes": 10}}


def _conv_norm_act(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, 1x1 projection (Table 1). (B, C, H, W) -> (B, O, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_skip = stride == 1 and in_channels == out_channels
        widen = [] if expansion == 1 else [_conv_norm_act(in_channels, hidden, 1)]
        self.conv = nn.Sequential(
            *widen,
            _conv_norm_act(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.has_skip else self.conv(x)  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """A 3x3 stem, 17 inverted residuals, a 1x1 head, average pooling, one Linear.

    Args:
        width: scales every channel count, rounded to a multiple of 8; the head's only where it is above 1 (sec. 6.1).
        head_width: channels that are pooled, before scaling.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        head_width: int = 1280,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,  # torchvision's
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = scaled_width(STEM_WIDTH, width, divisor=8)
        layers: list[nn.Module] = [_conv_norm_act(in_channels, channels, 3, stride=2)]
        for t, c, n, s in STAGES:
            out_channels = scaled_width(c, width, divisor=8)
            for i in range(n):
                layers.append(InvertedResidual(channels, out_channels, expansion=t, stride=s if i == 0 else 1))
                channels = out_channels
        head_width = scaled_width(head_width, max(1.0, width), divisor=8)
        self.features = nn.Sequential(*layers, _conv_norm_act(channels, head_width, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head_width, num_classes))
        he_normal_of_all_groups_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.flatten(self.avgpool(self.features(x)))
        return self.classifier(x)  # type: ignore[no-any-return]


mobilenet_v2 = register_model("mobilenet_v2", MobileNetV2)
