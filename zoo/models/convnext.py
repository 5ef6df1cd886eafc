"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545).

A ResNet with the choices of a vision Transformer: patches for a stem, few activations, LayerNorm, wide perceptrons,
and depthwise 7x7 convolutions in the place of attention. Parameter names are timm's. LayerNorm eps 1e-6, exact GELU.

Differs from the paper: stochastic depth is off until asked for (the paper's: drop_path 0.1 for tiny, 0.4 for small).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from zoo.models.init import truncated_normal_
from zoo.models.layers import DropPath, Mlp
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {"convnext_tiny": {"depths": (1, 2), "widths": (16, 32), "num_classes": 10}}


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel. (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise 7x7, LayerNorm, perceptron on each pixel (Fig. 4, right). (B, C, H, W) -> (B, C, H, W).

    `gamma` is a learned factor per channel on the branch (LayerScale, Touvron et al. 2021, arXiv 2103.17239).
    """

    def __init__(self, width: int, *, mlp_ratio: float, layer_scale: float, drop_path: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden=int(width * mlp_ratio))
        self.gamma = nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_dw(x).permute(0, 2, 3, 1)  # (B, H, W, C): a Linear there is faster than a 1x1 convolution
        out = self.mlp(self.norm(out)).permute(0, 3, 1, 2)  # (B, C, H, W)
        return x + self.drop_path(out * self.gamma[:, None, None])  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A 2x2 convolution of stride 2, except in the first stage, then blocks."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        mlp_ratio: float,
        layer_scale: float,
        drop_path: Sequence[float],
    ) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_channels != width:
            self.downsample = nn.Sequential(
                LayerNorm2d(in_channels, eps=1e-6), nn.Conv2d(in_channels, width, stride, stride)
            )
        self.blocks = nn.Sequential(
            *(Block(width, mlp_ratio=mlp_ratio, layer_scale=layer_scale, drop_path=p) for p in drop_path)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, width, H / stride, W / stride)
        return self.blocks(self.downsample(x))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Average pooling, LayerNorm, one Linear. (B, C, H, W) -> (B, num_classes)."""

    def __init__(self, width: int, *, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.norm = LayerNorm2d(width, eps=1e-6)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(self.norm(self.global_pool(x)))
        return self.fc(self.drop(x))  # type: ignore[no-any-return]


class ConvNeXt(nn.Module):
    """A stem that cuts the image into patches, stages that halve it, and a head.

    Args:
        depths, widths: blocks and channels of each stage.
        patch_size: side of the stem's patches in pixels: it divides the image's resolution by that.
        layer_scale: what `gamma` starts from.
        drop_path: probability of skipping the last block's branch in training; it grows linearly from 0 at the first.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        widths: Sequence[int] = (96, 192, 384, 768),  # sec. 3
        patch_size: int = 4,
        mlp_ratio: float = 4.0,
        layer_scale: float = 1e-6,  # Table 5
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], patch_size, patch_size), LayerNorm2d(widths[0], eps=1e-6)
        )
        stages: list[nn.Module] = []
        channels, done, last = widths[0], 0, max(sum(depths) - 1, 1)
        for depth, width in zip(depths, widths, strict=True):
            stages.append(
                Stage(
                    channels,
                    width,
                    stride=2 if stages else 1,
                    mlp_ratio=mlp_ratio,
                    layer_scale=layer_scale,
                    drop_path=[drop_path * (done + i) / last for i in range(depth)],
                )
            )
            channels, done = width, done + depth
        self.stages = nn.Sequential(*stages)
        self.head = Head(channels, num_classes=num_classes, dropout=dropout)
        truncated_normal_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.head(self.stages(self.stem(x)))  # type: ignore[no-any-return]


# sec. 3: ConvNeXt-T and -S
convnext_tiny = register_model("convnext_tiny", partial(ConvNeXt, depths=(3, 3, 9, 3)))
convnext_small = register_model("convnext_small", partial(ConvNeXt, depths=(3, 3, 27, 3)))
