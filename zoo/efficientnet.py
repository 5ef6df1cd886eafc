"""EfficientNet-Lite (Liu & Tan 2020, after Tan & Le 2019, "EfficientNet", https://arxiv.org/abs/1905.11946).

EfficientNet-B0 for integer arithmetic: no squeeze-and-excite, ReLU6 in place of swish, and a stem, head, first and last
stage that do not grow with the model (tensorflow/tpu, models/official/efficientnet/lite). Parameter names are timm's.

efficientnet_lite0      PyTorch's padding, alike on both sides; BatchNorm eps 1e-5.
tf_efficientnet_lite0   TensorFlow's SAME padding and BatchNorm eps 1e-3: what the published weights were trained with.
                        In the other network they run, and lose 4 points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from zoo.init import CONVOLUTIONS, he_normal_
from zoo.layers import Conv2dSame, DropPath, scaled_width
from zoo.registry import register_model

# expansion t, kernel k, output channels c, repeats n, stride of the first s (Tan & Le 2019, Table 1)
STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
TINY: dict[str, dict[str, object]] = {
    "efficientnet_lite0": {"width": 0.1, "depth": 0.3, "stem_width": 8, "head_width": 32, "num_classes": 10},
    "tf_efficientnet_lite0": {"width": 0.1, "depth": 0.3, "stem_width": 8, "head_width": 32, "num_classes": 10},
}

Norm = Callable[[int], nn.BatchNorm2d]


def _conv(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, same: bool
) -> nn.Conv2d:
    # at stride 1 an odd kernel's SAME padding is symmetric, and then the plain convolution is the same function
    if same and stride > 1:
        return Conv2dSame(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class DepthwiseSeparable(nn.Module):
    """Depthwise kxk, 1x1 projection. (B, C, H, W) -> (B, O, H / stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        norm: Norm,
        same: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_dw = _conv(in_channels, in_channels, kernel, stride=stride, groups=in_channels, same=same)
        self.bn1 = norm(in_channels)
        self.act1 = nn.ReLU6()
        self.conv_pw = _conv(in_channels, out_channels, 1, same=same)
        self.bn2 = norm(out_channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv_dw(x)))
        out = self.bn2(self.conv_pw(out))
        return x + self.drop_path(out) if self.has_skip else out  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise kxk, 1x1 projection. (B, C, H, W) -> (B, O, H / stride, W / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        kernel: int,
        stride: int,
        norm: Norm,
        same: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_pw = _conv(in_channels, hidden, 1, same=same)
        self.bn1 = norm(hidden)
        self.act1 = nn.ReLU6()
        self.conv_dw = _conv(hidden, hidden, kernel, stride=stride, groups=hidden, same=same)
        self.bn2 = norm(hidden)
        self.act2 = nn.ReLU6()
        self.conv_pwl = _conv(hidden, out_channels, 1, same=same)
        self.bn3 = norm(out_channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv_pw(x)))
        out = self.act2(self.bn2(self.conv_dw(out)))
        out = self.bn3(self.conv_pwl(out))
        return x + self.drop_path(out) if self.has_skip else out  # type: ignore[no-any-return]


class EfficientNetLite(nn.Module):
    """Stem, seven stages of inverted residuals, a 1x1 head, average pooling, one Linear.

    Args:
        width, depth: scale the stages' channels (to multiples of 8) and repeats; the first and the last do not repeat.
        same: TensorFlow's SAME padding where a convolution has a stride.
        norm_eps: BatchNorm's epsilon.
        drop_path: probability of skipping the last block's branch in training; it grows linearly from 0 at the first.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        stem_width: int = 32,
        head_width: int = 1280,
        same: bool = False,
        norm_eps: float = 1e-5,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,  # tensorflow/tpu, efficientnet_lite_builder.py
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=norm_eps)
        self.num_classes = num_classes
        self.conv_stem = _conv(in_channels, stem_width, 3, stride=2, same=same)
        self.bn1 = norm(stem_width)
        self.act1 = nn.ReLU6()
        repeats = [n if s in (0, len(STAGES) - 1) else math.ceil(n * depth) for s, (_, _, _, n, _) in enumerate(STAGES)]
        channels, done, total = stem_width, 0, sum(repeats)
        stages = []
        for (t, k, c, _, s), n in zip(STAGES, repeats, strict=True):
            out_channels = scaled_width(c, width, divisor=8)
            blocks: list[nn.Module] = []
            for i in range(n):
                stride, p = s if i == 0 else 1, drop_path * done / total
                if t == 1:
                    blocks.append(
                        DepthwiseSeparable(
                            channels, out_channels, kernel=k, stride=stride, norm=norm, same=same, drop_path=p
                        )
                    )
                else:
                    blocks.append(
                        InvertedResidual(
                            channels,
                            out_channels,
                            expansion=t,
                            kernel=k,
                            stride=stride,
                            norm=norm,
                            same=same,
                            drop_path=p,
                        )
                    )
                channels, done = out_channels, done + 1
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _conv(channels, head_width, 1, same=same)
        self.bn2 = norm(head_width)
        self.act2 = nn.ReLU6()
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(head_width, num_classes)
        he_normal_(self, kinds=CONVOLUTIONS, fan="out")  # Linears keep PyTorch's own uniform draw

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.act1(self.bn1(self.conv_stem(x)))
        x = self.blocks(x)
        x = self.act2(self.bn2(self.conv_head(x)))
        x = self.flatten(self.global_pool(x))
        return self.classifier(self.drop(x))  # type: ignore[no-any-return]


efficientnet_lite0 = register_model("efficientnet_lite0", EfficientNetLite)
tf_efficientnet_lite0 = register_model("tf_efficientnet_lite0", partial(EfficientNetLite, same=True, norm_eps=1e-3))
