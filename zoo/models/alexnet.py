"""AlexNet (Krizhevsky, Sutskever & Hinton 2012, as in Krizhevsky 2014, https://arxiv.org/abs/1404.5997).

The network of "One weird trick for parallelizing convolutional neural networks" (2014), which runs on one GPU.

Parameter names are torchvision's, so that its weights load as they are.

Differs from the network of 2012:
- one tower in place of two, one for each GPU, that meet at some layers: no grouped convolutions, and 64, 192, 384,
  256 and 256 filters in place of 96, 256, 384, 384 and 256.
- no local response normalization.
- dropout before the two hidden Linears, not after them (torchvision).
- weights are drawn as PyTorch draws them, not from N(0, 0.01^2) (torchvision).
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {"alexnet": {"width": 0.125, "hidden": 64, "num_classes": 10}}


class AlexNet(nn.Module):
    """Five convolutions, three max-poolings, 6 x 6 average pooling (no change at 224 pixels), three Linears.

    Args:
        width: scales the channels and `hidden`.
        hidden: outputs of the two Linears before the classifier.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        hidden: int = 4096,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5, f = (scaled_width(channels, width) for channels in (64, 192, 384, 256, 256, hidden))
        self.num_classes = num_classes
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 11, 4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(c5 * 6 * 6, f),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(f, f),
            nn.ReLU(inplace=True),
            nn.Linear(f, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.avgpool(self.features(x))  # (B, 256, 6, 6)
        return self.classifier(self.flatten(x))  # type: ignore[no-any-return]


alexnet = register_model("alexnet", AlexNet)
