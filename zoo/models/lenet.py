"""LeNet (LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning...", https://doi.org/10.1109/5.726791).

Three networks for 28 x 28 digits (others by `image_size`), the ones that the pruning literature counts in:

lenet5         the modern form of the paper's: the second layer sees all six maps, the output is linear, ReLU and
               max-pooling replace tanh and weighted averages. 28 x 28 is padded by 2 to the paper's 32 x 32.
lenet5_caffe   Caffe's examples/mnist/lenet_train_test.prototxt, the "LeNet-5" of Han et al. 2015: no padding, and ReLU
               after the first Linear only.
lenet_300_100  the paper's fully connected network (sec. III-B); ReLU, as in Han et al. 2015.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.models.init import xavier_uniform_
from zoo.models.layers import scaled_width
from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {
    "lenet5": {"width": 1.0, "num_classes": 10},
    "lenet5_caffe": {"width": 0.4, "num_classes": 10},
    "lenet_300_100": {"width": 0.1, "num_classes": 10},
}


def _side(left: int, image_size: int) -> int:
    """What the poolings leave of the side of an image."""
    if left < 1:
        raise ValueError(f"image_size={image_size} is too small: nothing is left of it after two poolings; 28 is usual")
    return left


class LeNet5(nn.Module):
    """Args: width scales every layer but the last; image_size is the side of the images in pixels."""

    def __init__(
        self,
        *,
        width: float = 1.0,
        image_size: int = 28,
        num_classes: int = 10,
        in_channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        c1, c2, f1, f2 = (scaled_width(channels, width) for channels in (6, 16, 120, 84))  # Fig. 2
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_channels, c1, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(c1, c2, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(c2 * _side((image_size // 2 - 4) // 2, image_size) ** 2, f1)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(f1, f2)
        self.relu4 = nn.ReLU()
        self.drop = nn.Dropout(dropout)
        self.fc3 = nn.Linear(f2, num_classes)
        xavier_uniform_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 28, 28) -> (B, num_classes)
        x = self.pool1(self.relu1(self.conv1(x)))  # (B, 6, 14, 14)
        x = self.pool2(self.relu2(self.conv2(x)))  # (B, 16, 5, 5)
        x = self.relu3(self.fc1(self.flatten(x)))
        x = self.relu4(self.fc2(x))
        return self.fc3(self.drop(x))  # type: ignore[no-any-return]


class LeNet5Caffe(nn.Module):
    """Args: as LeNet5's."""

    def __init__(
        self,
        *,
        width: float = 1.0,
        image_size: int = 28,
        num_classes: int = 10,
        in_channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        c1, c2, f1 = (scaled_width(channels, width) for channels in (20, 50, 500))
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_channels, c1, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(c1, c2, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(c2 * _side(((image_size - 4) // 2 - 4) // 2, image_size) ** 2, f1)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(f1, num_classes)
        xavier_uniform_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 28, 28) -> (B, num_classes)
        x = self.pool1(self.conv1(x))  # (B, 20, 12, 12)
        x = self.pool2(self.conv2(x))  # (B, 50, 4, 4)
        x = self.relu(self.fc1(self.flatten(x)))
        return self.fc2(self.drop(x))  # type: ignore[no-any-return]


class LeNet300(nn.Module):
    """Args: as LeNet5's."""

    def __init__(
        self,
        *,
        width: float = 1.0,
        image_size: int = 28,
        num_classes: int = 10,
        in_channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        f1, f2 = (scaled_width(channels, width) for channels in (300, 100))
        self.num_classes = num_classes
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(in_channels * image_size**2, f1)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(f1, f2)
        self.relu2 = nn.ReLU()
        self.drop = nn.Dropout(dropout)
        self.fc3 = nn.Linear(f2, num_classes)
        xavier_uniform_(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, 28, 28) -> (B, num_classes)
        x = self.relu1(self.fc1(self.flatten(x)))
        x = self.relu2(self.fc2(x))
        return self.fc3(self.drop(x))  # type: ignore[no-any-return]


lenet5 = register_model("lenet5", LeNet5, input_size=(1, 28, 28))
lenet5_caffe = register_model("lenet5_caffe", LeNet5Caffe, input_size=(1, 28, 28))
lenet_300_100 = register_model("lenet_300_100", LeNet300, input_size=(1, 28, 28))
