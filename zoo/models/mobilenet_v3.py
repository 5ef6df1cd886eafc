"""MobileNetV3 (Howard et al. 2019, "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244).

MobileNetV2's blocks with widths and kernels found by search, squeeze-and-excite in some of them, hard-swish in the
later ones, and a last layer that is moved behind the pooling. Parameter names are torchvision's.

Differs from the paper: PyTorch's padding, alike on both sides, where TensorFlow's is SAME.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from zoo.models.init import he_normal_of_all_groups_
from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

RE, HS = nn.ReLU, nn.Hardswish
Activation = type[nn.ReLU] | type[nn.Hardswish]
Stage = tuple[int, int, int, bool, Activation, int]
STEM_WIDTH = 16  # Tables 1 and 2
HEAD_EXPANSION = 6  # Tables 1 and 2: 160 to 960, 96 to 576
# kernel k, expanded channels e, output channels c, squeeze-and-excite, activation, stride s
LARGE: tuple[Stage, ...] = (  # Table 1
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2),
    (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1),
    (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2),
    (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1),
    (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2),
    (5, 960, 160, True, HS, 1),
    (5, 960, 160, True, HS, 1),
)
SMALL: tuple[Stage, ...] = (  # Table 2
    (3, 16, 16, True, RE, 2),
    (3, 72, 24, False, RE, 2),
    (3, 88, 24, False, RE, 1),
    (5, 96, 40, True, HS, 2),
    (5, 240, 40, True, HS, 1),
    (5, 240, 40, True, HS, 1),
    (5, 120, 48, True, HS, 1),
    (5, 144, 48, True, HS, 1),
    (5, 288, 96, True, HS, 2),
    (5, 576, 96, True, HS, 1),
    (5, 576, 96, True, HS, 1),
)
TINY: dict[str, dict[str, object]] = {"mobilenet_v3_small": {"width": 0.15, "num_classes": 10}}


def _conv_norm_act(
    in_channels: int, out_channels: int, kernel: int, activation: Activation | None, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01),  # TensorFlow's; sec. 6.1.1 (1 - 0.99)
        *([] if activation is None else [activation(inplace=True)]),
    )


class SqueezeExcite(nn.Module):
    """Each channel times a gate in [0, 1] that is computed from all channels' means (Hu et al. 2017, arXiv 1709.01507).

    (B, C, H, W) -> (B, C, H, W). The gate is a hard sigmoid, the squeeze a quarter of the channels (sec. 5.2, 5.3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = scaled_width(channels // 4, 1.0, divisor=8)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(self.avgpool(x)))))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise kxk, squeeze-and-excite, 1x1 projection (Fig. 4).

    (B, C, H, W) -> (B, O, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int,
        kernel: int,
        stride: int,
        squeeze: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.has_skip = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(_conv_norm_act(in_channels, hidden, 1, activation))
        layers.append(_conv_norm_act(hidden, hidden, kernel, activation, stride=stride, groups=hidden))
        if squeeze:
            layers.append(SqueezeExcite(hidden))
        layers.append(_conv_norm_act(hidden, out_channels, 1, None))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        if self.has_skip:
            out += x
        return out  # type: ignore[no-any-return]


class MobileNetV3(nn.Module):
    """A 3x3 stem, inverted residuals, a 1x1 head, average pooling, two Linears.

    Args:
        stages: one row of Table 1 or 2 a block.
        last_width: outputs of the first Linear.
        width: scales every channel count, `last_width` included, rounded to a multiple of 8.
    """

    def __init__(
        self,
        *,
        stages: Sequence[Stage],
        last_width: int,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,  # torchvision's; the paper's 0.8 (sec. 6.1.1) is the share that is kept
    ) -> None:
        super().__init__()
        scaled = partial(scaled_width, scale=width, divisor=8)
        self.num_classes = num_classes
        channels = scaled(STEM_WIDTH)
        layers: list[nn.Module] = [_conv_norm_act(in_channels, channels, 3, HS, stride=2)]
        for k, e, c, squeeze, activation, s in stages:
            layers.append(
                InvertedResidual(
                    channels, scaled(c), hidden=scaled(e), kernel=k, stride=s, squeeze=squeeze, activation=activation
                )
            )
            channels = scaled(c)
        head_width = HEAD_EXPANSION * channels
        self.features = nn.Sequential(*layers, _conv_norm_act(channels, head_width, 1, HS))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Linear(head_width, scaled(last_width)),
            nn.Hardswish(inplace=True),
            nn.Dropout(dropout),  # not in place: another activation here may keep its output for its gradient
            nn.Linear(scaled(last_width), num_classes),
        )
        he_normal_of_all_groups_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.flatten(self.avgpool(self.features(x)))
        return self.classifier(x)  # type: ignore[no-any-return]


mobilenet_v3_large = register_model("mobilenet_v3_large", partial(MobileNetV3, stages=LARGE, last_width=1280))
mobilenet_v3_small = register_model("mobilenet_v3_small", partial(MobileNetV3, stages=SMALL, last_width=1024))
