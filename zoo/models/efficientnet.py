"""EfficientNet (Tan & Le 2019, "EfficientNet: rethinking model scaling...", https://arxiv.org/abs/1905.11946).

efficientnet_b0        the paper's: squeeze-and-excite (Hu et al. 2017) in every block, SiLU.
efficientnet_lite0..4  for integer arithmetic: no squeeze-and-excite, ReLU6, and a stem, head, first and last stage that
                       do not grow with the model (Liu & Tan 2020, tensorflow/tpu, models/official/efficientnet/lite).
tf_efficientnet_lite*  the same with TensorFlow's SAME padding and BatchNorm eps 1e-3: what the published weights were
                       trained with. In the plain network they run, and lose 4 points (lite0).

Parameter names are timm's. Differs from the paper: B0 and Lite pad both sides alike, as PyTorch does, and have
BatchNorm eps 1e-5; stochastic depth is off until asked for (the paper's: drop_path 0.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from zoo.models.init import CONVOLUTIONS, he_normal_
from zoo.models.layers import Conv2dSame, DropPath, scaled_width
from zoo.models.registry import register_model

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
    "efficientnet_b0": {"width": 0.1, "depth": 0.3, "stem_width": 8, "head_width": 32, "num_classes": 10},
    "efficientnet_lite0": {"width": 0.1, "depth": 0.3, "stem_width": 8, "head_width": 32, "num_classes": 10},
    "tf_efficientnet_lite0": {"width": 0.1, "depth": 0.3, "stem_width": 8, "head_width": 32, "num_classes": 10},
}

Norm = Callable[[int], nn.Module]
Act = Callable[[], nn.Module]
SILU: Act = partial(nn.SiLU, inplace=True)
RELU6: Act = partial(nn.ReLU6, inplace=True)


class Kinds(NamedTuple):
    """What all blocks of a network have; `same`: TensorFlow's padding where a convolution has a stride."""

    act: Act
    norm: Norm
    same: bool
    squeeze: bool


def _conv(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, same: bool
) -> nn.Conv2d:
    # at stride 1 an odd kernel's SAME padding is symmetric, and then the plain convolution is the same function
    if same and stride > 1:
        return Conv2dSame(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class SqueezeExcite(nn.Module):
    """A factor in (0, 1) for each channel, computed from all channels' means (Hu et al. 2017, arXiv 1709.01507)."""

    def __init__(self, channels: int, *, squeezed: int, act: Act) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.act1 = act()
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        factor = self.conv_expand(self.act1(self.conv_reduce(self.pool(x))))  # (B, C, 1, 1)
        return x * self.gate(factor)  # type: ignore[no-any-return]


class DepthwiseSeparable(nn.Module):
    """Depthwise kxk, 1x1 projection. (B, C, H, W) -> (B, O, H / stride, W / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int, stride: int, kinds: Kinds, drop_path: float
    ) -> None:
        super().__init__()
        act, norm, same, squeeze = kinds
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_dw = _conv(in_channels, in_channels, kernel, stride=stride, groups=in_channels, same=same)
        self.bn1 = norm(in_channels)
        self.act1 = act()
        self.se = SqueezeExcite(in_channels, squeezed=in_channels // 4, act=act) if squeeze else nn.Identity()
        self.conv_pw = _conv(in_channels, out_channels, 1, same=same)
        self.bn2 = norm(out_channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv_dw(x)))
        out = self.bn2(self.conv_pw(self.se(out)))
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
        kinds: Kinds,
        drop_path: float,
    ) -> None:
        super().__init__()
        act, norm, same, squeeze = kinds
        hidden = in_channels * expansion
        self.has_skip = stride == 1 and in_channels == out_channels
        self.conv_pw = _conv(in_channels, hidden, 1, same=same)
        self.bn1 = norm(hidden)
        self.act1 = act()
        self.conv_dw = _conv(hidden, hidden, kernel, stride=stride, groups=hidden, same=same)
        self.bn2 = norm(hidden)
        self.act2 = act()
        # a quarter of the block's input, not of what it was expanded to (tensorflow/tpu, efficientnet_model.py)
        self.se = SqueezeExcite(hidden, squeezed=in_channels // 4, act=act) if squeeze else nn.Identity()
        self.conv_pwl = _conv(hidden, out_channels, 1, same=same)
        self.bn3 = norm(out_channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv_pw(x)))
        out = self.act2(self.bn2(self.conv_dw(out)))
        out = self.bn3(self.conv_pwl(self.se(out)))
        return x + self.drop_path(out) if self.has_skip else out  # type: ignore[no-any-return]


class EfficientNet(nn.Module):
    """Stem, seven stages of inverted residuals, a 1x1 head, average pooling, one Linear.

    Args:
        width, depth: scale the stages' channels (to multiples of 8) and repeats; the first and the last do not repeat.
        lite: no squeeze-and-excite, and ReLU6 in place of SiLU.
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
        lite: bool = False,
        same: bool = False,
        norm_eps: float = 1e-5,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,  # tensorflow/tpu, efficientnet_builder.py: B0's
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        kinds = Kinds(RELU6 if lite else SILU, partial(nn.BatchNorm2d, eps=norm_eps), same, squeeze=not lite)
        act, norm = kinds.act, kinds.norm
        self.num_classes = num_classes
        self.conv_stem = _conv(in_channels, stem_width, 3, stride=2, same=same)
        self.bn1 = norm(stem_width)
        self.act1 = act()
        repeats = [n if s in (0, len(STAGES) - 1) else math.ceil(n * depth) for s, (_, _, _, n, _) in enumerate(STAGES)]
        channels, done, total = stem_width, 0, sum(repeats)
        stages = []
        for (t, k, c, _, s), n in zip(STAGES, repeats, strict=True):
            block = DepthwiseSeparable if t == 1 else partial(InvertedResidual, expansion=t)
            out_channels = scaled_width(c, width, divisor=8)
            blocks = []
            for i in range(n):
                blocks.append(
                    block(
                        channels,
                        out_channels,
                        kernel=k,
                        stride=s if i == 0 else 1,
                        kinds=kinds,
                        drop_path=drop_path * done / total,
                    )
                )
                channels, done = out_channels, done + 1
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _conv(channels, head_width, 1, same=same)
        self.bn2 = norm(head_width)
        self.act2 = act()
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(head_width, num_classes)
        he_normal_(self, kinds=CONVOLUTIONS, fan="out")
        bound = num_classes**-0.5  # tensorflow/tpu, efficientnet_model.py, dense_kernel_initializer
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.act1(self.bn1(self.conv_stem(x)))
        x = self.blocks(x)
        x = self.act2(self.bn2(self.conv_head(x)))
        x = self.flatten(self.global_pool(x))
        return self.classifier(self.drop(x))  # type: ignore[no-any-return]


# width, depth, image size and dropout of Lite: tensorflow/tpu, efficientnet_lite_builder.py; sizes of 3 and 4: timm's
_lite = partial(EfficientNet, lite=True)
_tf_lite = partial(_lite, same=True, norm_eps=1e-3)
efficientnet_b0 = register_model("efficientnet_b0", EfficientNet)
efficientnet_lite0 = register_model("efficientnet_lite0", _lite)
efficientnet_lite1 = register_model("efficientnet_lite1", partial(_lite, depth=1.1), input_size=(3, 240, 240))
efficientnet_lite2 = register_model(
    "efficientnet_lite2", partial(_lite, width=1.1, depth=1.2, dropout=0.3), input_size=(3, 260, 260)
)
efficientnet_lite3 = register_model(
    "efficientnet_lite3", partial(_lite, width=1.2, depth=1.4, dropout=0.3), input_size=(3, 300, 300)
)
efficientnet_lite4 = register_model(
    "efficientnet_lite4", partial(_lite, width=1.4, depth=1.8, dropout=0.3), input_size=(3, 380, 380)
)
tf_efficientnet_lite0 = register_model("tf_efficientnet_lite0", _tf_lite)
tf_efficientnet_lite1 = register_model("tf_efficientnet_lite1", partial(_tf_lite, depth=1.1), input_size=(3, 240, 240))
tf_efficientnet_lite2 = register_model(
    "tf_efficientnet_lite2", partial(_tf_lite, width=1.1, depth=1.2, dropout=0.3), input_size=(3, 260, 260)
)
tf_efficientnet_lite3 = register_model(
    "tf_efficientnet_lite3", partial(_tf_lite, width=1.2, depth=1.4, dropout=0.3), input_size=(3, 300, 300)
)
tf_efficientnet_lite4 = register_model(
    "tf_efficientnet_lite4", partial(_tf_lite, width=1.4, depth=1.8, dropout=0.3), input_size=(3, 380, 380)
)
