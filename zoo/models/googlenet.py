"""GoogLeNet, Inception v1 (Szegedy et al. 2014, "Going deeper with convolutions", https://arxiv.org/abs/1409.4842).

Parameter names are torchvision's, so that its weights load as they are.

Differs from the paper, as torchvision does:
- the "5x5" branch of an inception module has 3x3 kernels: a slip of TensorFlow's port, kept since the weights have it.
- batch normalization (Ioffe & Szegedy 2015, eps 1e-3) after each convolution in place of local response normalization.
- max-poolings round up, and the last has a kernel of 2, not 3.
- auxiliary heads pool to 4 x 4 whatever the image's size, where the paper has a 5x5 window of stride 3.
- dropout of 0.2, not 0.4, before the classifier.

Images are normalized outside, as Preprocess says. torchvision's weights were TensorFlow's and want mean and std 0.5 for
each channel; torchvision takes ImageNet's instead and converts inside (`transform_input`), which this model does not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {"googlenet": {"width": 0.09, "num_classes": 10}}


class GoogLeNetOutput(NamedTuple):
    """What training with auxiliary heads returns, each (B, num_classes); the paper weighs their losses 1, 0.3, 0.3."""

    logits: Tensor
    aux_logits2: Tensor  # of the head after inception4d
    aux_logits1: Tensor  # of the head after inception4a


class BasicConv2d(nn.Module):
    """Convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Inception(nn.Module):
    """Four branches side by side (Fig. 2b). (B, C, H, W) -> (B, c1 + c3 + c5 + pool, H, W)."""

    def __init__(self, in_channels: int, c1: int, reduce3: int, c3: int, reduce5: int, c5: int, pool: int) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(in_channels, c1, 1)
        self.branch2 = nn.Sequential(BasicConv2d(in_channels, reduce3, 1), BasicConv2d(reduce3, c3, 3))
        self.branch3 = nn.Sequential(BasicConv2d(in_channels, reduce5, 1), BasicConv2d(reduce5, c5, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), BasicConv2d(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class InceptionAux(nn.Module):
    """A classifier on the way (sec. 5): pooling, 1x1 convolution, two Linears. (B, C, H, W) -> (B, num_classes)."""

    def __init__(self, in_channels: int, *, width: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = BasicConv2d(in_channels, width, 1)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(width * 4 * 4, hidden)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(self.conv(self.pool(x)))  # (B, 128 x 4 x 4)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))  # type: ignore[no-any-return]


class GoogLeNet(nn.Module):
    """Three convolutions, nine inception modules with max-pooling in between, average pooling, one Linear.

    Args:
        aux_heads: two more classifiers in mid-network that help to train it; nothing of them runs in eval mode.
        aux_dropout: before their last Linear.
        width: scales every layer but the classifiers.
    """

    def __init__(
        self,
        *,
        aux_heads: bool = False,
        aux_dropout: float = 0.7,  # sec. 5
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        c1, channels, aux_width, aux_hidden = (scaled_width(c, width) for c in (64, 192, 128, 1024))

        def inception(*widths: int) -> Inception:
            nonlocal channels
            own, reduce3, c3, reduce5, c5, pool = (scaled_width(c, width) for c in widths)
            block = Inception(channels, own, reduce3, c3, reduce5, c5, pool)
            channels = own + c3 + c5 + pool
            return block

        def head(in_channels: int) -> InceptionAux:
            return InceptionAux(
                in_channels, width=aux_width, hidden=aux_hidden, num_classes=num_classes, dropout=aux_dropout
            )

        self.num_classes = num_classes
        self.conv1 = BasicConv2d(in_channels, c1, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(c1, c1, 1)
        self.conv3 = BasicConv2d(c1, channels, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        # Table 1: 1x1 | reduction to, 3x3 | reduction to, "5x5" | after pooling
        self.inception3a = inception(64, 96, 128, 16, 32, 32)
        self.inception3b = inception(128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = inception(192, 96, 208, 16, 48, 64)
        channels_4a = channels
        self.inception4b = inception(160, 112, 224, 24, 64, 64)
        self.inception4c = inception(128, 128, 256, 24, 64, 64)
        self.inception4d = inception(112, 144, 288, 32, 64, 64)
        channels_4d = channels
        self.inception4e = inception(256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = inception(256, 160, 320, 32, 128, 128)
        self.inception5b = inception(384, 192, 384, 48, 128, 128)
        self.aux1 = head(channels_4a) if aux_heads else None
        self.aux2 = head(channels_4d) if aux_heads else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.01)  # torchvision's; biases keep PyTorch's own draw

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutput:  # (B, C, H, W) -> (B, num_classes)
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.inception4a(self.maxpool3(self.inception3b(self.inception3a(x))))  # (B, 512, 14, 14)
        y = self.inception4d(self.inception4c(self.inception4b(x)))  # (B, 528, 14, 14)
        z = self.inception5b(self.inception5a(self.maxpool4(self.inception4e(y))))  # (B, 1024, 7, 7)
        logits = self.fc(self.dropout(self.flatten(self.avgpool(z))))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutput(logits, aux_logits2=self.aux2(y), aux_logits1=self.aux1(x))
        return logits  # type: ignore[no-any-return]


googlenet = register_model("googlenet", GoogLeNet)
