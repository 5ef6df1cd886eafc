"""Small networks around one layer or one function: convolution, the middle, convolution, mean, classifier."""

import torch
from torch import nn

WIDTH = 24
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (3, 16), 2: (3, 8, 8), 3: (3, 4, 8, 8)}


class Around(nn.Module):
    """`first` gives WIDTH channels; `call(middle, x)` gives `out` of them to `second`."""

    def __init__(self, middle=None, call=None, *, out=WIDTH, dims=2):
        super().__init__()
        self.size = SIZES[dims]
        self.first = CONV[dims](3, WIDTH, 3, padding=1)
        self.middle = nn.Identity() if middle is None else middle
        self.call = call
        self.second = CONV[dims](out, 16, 1)
        self.classify = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = self.middle(x) if self.call is None else self.call(self.middle, x)
        return self.classify(self.second(x).relu().flatten(2).mean(2))


class Tokens(nn.Module):
    """The same for a middle that takes (B, L, C)."""

    def __init__(self, middle, call=None, *, out=WIDTH):
        super().__init__()
        self.size = SIZES[2]
        self.first = nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.middle, self.call = middle, call
        self.second = nn.Linear(out, 16)
        self.classify = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).flatten(2).transpose(1, 2)
        x = self.middle(x) if self.call is None else self.call(self.middle, x)
        return self.classify(self.second(x).relu().mean(1))


class Pooled(nn.Module):
    """For a middle that takes the maps (B, C, 4, 4) and gives a vector, `out` numbers when flattened."""

    def __init__(self, middle, call, *, out):
        super().__init__()
        self.size = SIZES[2]
        self.first = nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.middle, self.call = middle, call
        self.second = nn.Linear(out, 16)
        self.classify = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.call(self.middle, self.first(x).relu()).flatten(1)
        return self.classify(self.second(x).relu())
