"""MLP (Rumelhart, Hinton & Williams 1986, "Learning representations by...", https://doi.org/10.1038/323533a0).

The multi-layer perceptron. Every pixel is an input of every unit of the first hidden layer: the network that knows
nothing of images, and the baseline of those that do.

Differs from the paper: ReLU where it has sigmoids (`create_model("mlp", activation="sigmoid")` has them back), and the
outputs are logits for a cross-entropy where it compares sigmoids with targets by squared error. Parameter names are
our own.

mlp is 784-512-256-10 for 28 x 28 digits: each layer about half of the one before, so that it narrows evenly from the
pixels to the classes, and multiples of 64, which pruning and integer arithmetic divide without a rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from zoo.models.init import he_normal_
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {"mlp": {"widths": (32, 16), "num_classes": 10}}


class MLP(nn.Module):
    """Hidden layers of Linear, ReLU and dropout, and one Linear that classifies.

    Args:
        widths: units of each hidden layer; () is softmax regression.
        image_size: the side of the images in pixels.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        image_size: int = 28,
        num_classes: int = 10,
        in_channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.flatten = nn.Flatten()
        layers: list[nn.Module] = []
        inputs = in_channels * image_size**2
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, num_classes)
        he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        return self.fc(self.layers(self.flatten(x)))  # type: ignore[no-any-return]


mlp = register_model("mlp", partial(MLP, widths=(512, 256)), input_size=(1, 28, 28))
