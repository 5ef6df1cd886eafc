"""SegNet (Badrinarayanan, Kendall & Cipolla 2015, "SegNet: a deep convolutional...", https://arxiv.org/abs/1511.00561).

A class for every pixel. The encoder is VGG-16 with batch normalization, without its Linears; each max-pooling remembers
where its maxima were, and the decoder, the encoder in mirror image, puts its values back there (Fig. 3).

Parameter names: `features.*` are those of torchvision's vgg16_bn, so that its weights start the encoder, as the paper's
did: `model.load_state_dict(weights, strict=False)`, where `weights` is that network's state dict or our own vgg16_bn's.
`decoder.*` are ours.

As in the authors' release (github.com/alexgkendall/SegNet-Tutorial, Models/segnet_train.prototxt):
- the decoder's last convolution is the classifier, 3x3 from 64 channels to the classes.
- 11 classes: CamVid's; its twelfth label, void, is left out of the loss and is no output.
- max-pooling rounds up (Caffe), so that a row or column too many is not lost: 360 x 480 becomes 12 x 15. VGG as
  torchvision has it rounds down; for multiples of 32 they are the same.
- `dropout` sits where Bayesian SegNet has it (Kendall, Badrinarayanan & Cipolla 2015, https://arxiv.org/abs/1511.02680):
  after the three deepest stages of the encoder and of the decoder, there 0.5. SegNet has none.
"""

from __future__ import annotations

from torch import Size, Tensor, nn

from zoo.models.init import he_normal_
from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

# channels and number of convolutions of each stage: VGG-16 (Simonyan & Zisserman 2014, Table 1, D)
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
DEEP = (2, 3, 4)  # the stages with dropout
TINY: dict[str, dict[str, object]] = {"segnet": {"width": 0.03125, "num_classes": 10}}


class SegNet(nn.Module):
    """Thirteen 3x3 convolutions down to 1/32 of the image, thirteen back up.

    Args:
        width: scales every layer but the last.
    """

    def __init__(
        self, *, width: float = 1.0, num_classes: int = 11, in_channels: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        widths = [scaled_width(channels, width) for channels, _ in STAGES]
        encoder: list[nn.Module] = []
        channels = in_channels
        for out_channels, (_, repeats) in zip(widths, STAGES, strict=True):
            for _ in range(repeats):
                encoder += _conv(channels, out_channels)
                channels = out_channels
            encoder.append(nn.MaxPool2d(2, ceil_mode=True, return_indices=True))
        decoder: list[nn.Module] = []
        for s in reversed(range(len(STAGES))):
            _, repeats = STAGES[s]
            decoder.append(nn.MaxUnpool2d(2))
            for _ in range(repeats - 1):
                decoder += _conv(widths[s], widths[s])
            if s > 0:
                decoder += _conv(widths[s], widths[s - 1])
            if s in DEEP:
                decoder.append(nn.Dropout(dropout))
        self.features = nn.Sequential(*encoder)
        # not among the features, whose numbers are torchvision's
        self.pool_drops = nn.ModuleList(nn.Dropout(dropout) if s in DEEP else nn.Identity() for s in range(len(STAGES)))
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(widths[0], num_classes, 3, padding=1))
        he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes, H, W)
        pooled: list[tuple[Tensor, Size]] = []  # where the maxima were, and the size of what was pooled
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                size = x.shape[-2:]
                x, indices = layer(x)
                x = self.pool_drops[len(pooled)](x)
                pooled.append((indices, size))
            else:
                x = layer(x)
        for layer in self.decoder:
            if isinstance(layer, nn.MaxUnpool2d):
                indices, size = pooled.pop()
                x = layer(x, indices, output_size=size)
            else:
                x = layer(x)
        return x


def _conv(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


segnet = register_model("segnet", SegNet, kind="dense", input_size=(3, 360, 480))
