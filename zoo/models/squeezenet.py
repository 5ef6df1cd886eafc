"""SqueezeNet (Iandola et al. 2016, "AlexNet-level accuracy with 50x fewer...", https://arxiv.org/abs/1602.07360).

Parameter names are torchvision's, so that its weights load as they are. squeezenet1_0 is the paper's (Table 1, whose
sizes are those of a 227 x 227 image); squeezenet1_1 is the authors' second release (github.com/forresti/SqueezeNet):
a smaller stem and earlier pooling, the same accuracy for 2.4 times fewer operations.

The classifier is a 1x1 convolution, and the ReLU after it leaves no logit below zero. Differs from the paper: fresh
weights are drawn by He's rule, not Xavier's (torchvision).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

# squeeze channels, expand channels of each kind: fire2 to fire9 (Table 1)
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
TINY: dict[str, dict[str, object]] = {"squeezenet1_1": {"width": 0.25, "num_classes": 10}}


class Fire(nn.Module):
    """1x1 convolution to few channels, then 1x1 and 3x3 side by side (Fig. 1). (B, C, H, W) -> (B, 2 expand, H, W)."""

    def __init__(self, in_channels: int, *, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        ones, threes = self.expand1x1(x), self.expand3x3(x)
        return torch.cat([self.expand1x1_activation(ones), self.expand3x3_activation(threes)], dim=1)


class SqueezeNet(nn.Module):
    """A stem, eight fire modules in groups with max-pooling before each, a 1x1 convolution to classes, pooling.

    Args:
        stem: channels of the first convolution.
        stem_kernel: its kernel; the stride is 2, without padding.
        groups: the number of fire modules after each max-pooling.
        width: scales every layer but the last.
    """

    def __init__(
        self,
        *,
        stem: int,
        stem_kernel: int,
        groups: Sequence[int],
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = scaled_width(stem, width)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, stem_kernel, 2), nn.ReLU(inplace=True)]
        fires = iter(FIRES)
        for repeats in groups:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))  # Caffe's rounding
            for _ in range(repeats):
                squeeze, expand = (scaled_width(c, width) for c in next(fires))
                layers.append(Fire(channels, squeeze=squeeze, expand=expand))
                channels = 2 * expand
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Conv2d(channels, num_classes, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )
        self.flatten = nn.Flatten()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)  # He et al. 2015, fan in
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        final = self.classifier[1]
        assert isinstance(final, nn.Conv2d)
        nn.init.normal_(final.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.flatten(self.classifier(self.features(x)))  # type: ignore[no-any-return]


squeezenet1_0 = register_model("squeezenet1_0", partial(SqueezeNet, stem=96, stem_kernel=7, groups=(3, 4, 1)))
squeezenet1_1 = register_model("squeezenet1_1", partial(SqueezeNet, stem=64, stem_kernel=3, groups=(2, 2, 4)))
