"""VGG (Simonyan & Zisserman 2014, "Very deep convolutional networks...", https://arxiv.org/abs/1409.1556).

Parameter names are torchvision's, so that its weights load as they are. vgg11, 13, 16 and 19 are the paper's
configurations A, B, D and E (Table 1).

Differs from the paper: the `_bn` variants normalize each convolution's output (Ioffe & Szegedy 2015), which lets them
train from fresh weights; before the Linears, average pooling to 7 x 7 (no change at 224 pixels) takes images of any
size; and weights are drawn as torchvision draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from zoo.models.init import CONVOLUTIONS, he_normal_
from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

WIDTHS = (64, 128, 256, 512, 512)  # channels of each stage (Table 1)
TINY: dict[str, dict[str, object]] = {
    "vgg11": {"width": 0.0625, "hidden": 128, "num_classes": 10},
    "vgg11_bn": {"width": 0.0625, "hidden": 128, "num_classes": 10},
}


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each closed by a max-pooling that halves the image; three Linears.

    Args:
        stages: the number of convolutions in each stage.
        batch_norm: normalize after each convolution.
        width: scales the channels and `hidden`.
        hidden: outputs of the two Linears before the classifier.
    """

    def __init__(
        self,
        *,
        stages: Sequence[int],
        batch_norm: bool = False,
        width: float = 1.0,
        hidden: int = 4096,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        layers: list[nn.Module] = []
        channels = in_channels
        for stage_width, repeats in zip(WIDTHS, stages, strict=True):
            out_channels = scaled_width(stage_width, width)
            for _ in range(repeats):
                layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(out_channels))
                layers.append(nn.ReLU(inplace=True))
                channels = out_channels
            layers.append(nn.MaxPool2d(2))
        f = scaled_width(hidden, width)
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Linear(channels * 7 * 7, f),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(f, f),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(f, num_classes),
        )
        he_normal_(self, kinds=CONVOLUTIONS, fan="out")
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)  # sec. 3.1
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.avgpool(self.features(x))  # (B, 512, 7, 7)
        return self.classifier(self.flatten(x))  # type: ignore[no-any-return]


vgg11 = register_model("vgg11", partial(VGG, stages=(1, 1, 2, 2, 2)))
vgg13 = register_model("vgg13", partial(VGG, stages=(2, 2, 2, 2, 2)))
vgg16 = register_model("vgg16", partial(VGG, stages=(2, 2, 3, 3, 3)))
vgg19 = register_model("vgg19", partial(VGG, stages=(2, 2, 4, 4, 4)))
vgg11_bn = register_model("vgg11_bn", partial(VGG, stages=(1, 1, 2, 2, 2), batch_norm=True))
vgg13_bn = register_model("vgg13_bn", partial(VGG, stages=(2, 2, 2, 2, 2), batch_norm=True))
vgg16_bn = register_model("vgg16_bn", partial(VGG, stages=(2, 2, 3, 3, 3), batch_norm=True))
vgg19_bn = register_model("vgg19_bn", partial(VGG, stages=(2, 2, 4, 4, 4), batch_norm=True))
