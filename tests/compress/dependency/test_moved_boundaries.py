"""Parts of a width that a forward treats apart, without weights: each has its own channels after a cut, or stays."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from shaken_models import shake_
from small_networks import WIDTH, Around
from torch import nn

from compress import prune_channels
from compress.dependency.group import CLASSES
from compress.dependency.groups import find_groups
from compress.pruning.structured import mask_

W = WIDTH


def joined(parts):
    """Each part shifted along another number of rows, in the old order."""
    return torch.cat([part.roll(i, 2) for i, part in enumerate(parts)], 1)


def shifted_in_place(x):
    out = x.clone()
    out[:, :8], out[:, 8:16] = x[:, :8].roll(1, 2), x[:, 8:16].roll(-1, 2)
    return out


def shifted_into_zeros(x):
    out = torch.zeros_like(x)
    out[:, :8, 1:], out[:, 8:16, :-1], out[:, 16:] = x[:, :8, :-1], x[:, 8:16, 1:], x[:, 16:]
    return out


def half_in_place(x):
    x = x.clone()
    x[:, : x.shape[1] // 2].mul_(2)
    return x


def thirds(x, c):
    return torch.cat([x[:, : c // 3].relu(), x[:, c // 3 : 2 * c // 3].tanh(), x[:, 2 * c // 3 :]], 1)


def order(x):
    return torch.arange(x.shape[1] - 1, -1, -1, device=x.device)


MOVES = r"its forward reads it by fixed numbers \(dependency/test_moved_boundaries\.py:\d+\)"
TOGETHER = "all its channels are needed together"
COUPLED = r"it is coupled with numbers that are no layer's output \(dependency/"
FUNCTIONS = {  # function, groups of `first` that are cut, why the others stay
    "chunk": (lambda x: joined(x.chunk(2, 1)), 2, ""),
    "chunk in 3": (lambda x: joined(x.chunk(3, 1)), 3, ""),
    "tensor_split": (lambda x: joined(x.tensor_split(3, 1)), 3, ""),
    "half of the width": (lambda x: joined([x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]]), 2, ""),
    "thirds of the width": (lambda x: thirds(x, x.shape[1]), 3, ""),
    "halves exchanged": (lambda x: torch.cat([x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]], 1), 2, ""),
    "first half in place": (half_in_place, 2, ""),
    "reshaped in 3": (lambda x: joined(x.unflatten(1, (3, -1)).unbind(1)), 3, ""),
    "gate beside its channel": (lambda x: (lambda a, b: torch.cat([a * b.sigmoid(), a], 1))(*x.chunk(2, 1)), 1, ""),
    "interleaved halves": (lambda x: torch.stack(x.chunk(2, 1), 2).flatten(1, 2), 1, ""),
    "rotated": (lambda x: x / 2 + torch.cat([-x.chunk(2, 1)[1], x.chunk(2, 1)[0]], 1), 1, ""),
    "flip": (lambda x: x.flip(1), 1, ""),
    "blocks exchanged": (lambda x: x.unflatten(1, (2, -1)).flip(1).flatten(1, 2), 1, "splits the channels"),
    "at 12": (lambda x: joined([x[:, :12], x[:, 12:]]), 1, MOVES),
    "at 10": (lambda x: joined([x[:, :10], x[:, 10:]]), 1, MOVES),
    "8 from the end": (lambda x: joined([x[:, :-8], x[:, -8:]]), 1, MOVES),
    "narrow": (lambda x: joined([x.narrow(1, 0, 12), x[:, 12:]]), 1, MOVES),
    "tensor_split at 7": (lambda x: joined(x.tensor_split([7], 1)), 0, MOVES),
    "split in fives": (lambda x: joined(x.split(5, 1)), 0, MOVES),
    "split in 4 and 20": (lambda x: joined(x.split([4, 20], 1)), 0, "fixes a shape: split_with_sizes"),
    "quarter of the width": (lambda x: joined(x.split([x.shape[1] // 4, x.shape[1] - x.shape[1] // 4], 1)), 0, MOVES),
    "thirds at 8 and 16": (lambda x: thirds(x, W), 1, MOVES),
    "relu of 10 in place": (lambda x: torch.cat([x.clone()[:, :10].relu_(), x[:, 10:]], 1), 1, MOVES),
    "shift in place": (shifted_in_place, 1, MOVES),
    "shift into zeros": (shifted_into_zeros, 0, COUPLED),
    "even and odd": (lambda x: torch.cat([x[:, ::2].roll(1, 2), x[:, 1::2]], 1), 0, MOVES),
    "rolled by 3": (lambda x: x.roll(3, 1).cumsum(2), 0, MOVES),
    "pairs": (lambda x: x.unflatten(1, (-1, 2)).flip(2).flatten(1, 2), 0, "fixes a shape|splits the channels"),
    "first alone": (lambda x: torch.cat([x[:, :1].tanh(), x[:, 1:]], 1), 1, TOGETHER),
    "one for all": (lambda x: x + x[:, 5:6].tanh(), 0, MOVES),
    "one picked": (lambda x: x * x[:, 3, None].sigmoid(), 0, "single channels of it are read"),
    "neighbour": (lambda x: x + x.roll(1, 1), 0, TOGETHER),
    "cumsum": (lambda x: x.cumsum(1), 0, TOGETHER),
    "sort": (lambda x: x.sort(1).values, 0, TOGETHER),
    "topk": (lambda x: x.topk(W, 1).values, 0, TOGETHER),
    "largest": (lambda x: x - x.amax(1, keepdim=True), 0, TOGETHER),
    "indexed": (lambda x: x[:, order(x)], 0, TOGETHER),
    "gathered": (lambda x: x.gather(1, order(x)[:, None, None].expand(x.shape)), 0, r"aten\.gather, which has no rule"),
    "masked": (lambda x: torch.where(order(x)[:, None, None] < 7, x, -x), 0, COUPLED),
    "ramp": (lambda x: x * torch.linspace(0, 1, W, dtype=x.dtype, device=x.device)[:, None, None], 0, COUPLED),
    "padded": (lambda x: F.pad(x[:, :-4], (0, 0, 0, 0, 2, 2)), 0, "it is padded to a fixed width"),
    "shifted by the width": (lambda x: x + x.shape[1] / 100, 0, "computes with a number that depends on it"),
    "another way": (lambda x: x.tanh() if x.shape[1] == W else x, 0, "its forward goes another way with other widths"),
}


def around(name: str) -> nn.Module:
    torch.manual_seed(0)
    return shake_(Around(None, lambda middle, x: FUNCTIONS[name][0](x)).eval())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts_of_a_width(name, assert_cut_is_mask):
    _, cut, reason = FUNCTIONS[name]
    model = around(name)
    grouping = find_groups(model, torch.empty(1, *model.size, device="meta"))
    assert len([g for g in grouping.groups if g.name.startswith("first")]) == cut
    stays = [why for why in grouping.whole.values() if why != CLASSES]
    assert bool(stays) == bool(reason)
    assert not reason or re.search(reason, stays[0]), stays
    assert_cut_is_mask(model, model.size)


class Offset(nn.Module):
    """Adds a number that it makes of the width where no operator shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3)
        self.third, self.classify = nn.Conv2d(32, 32, 3), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        x = self.second(x) + torch.full((1, 1, 1, 1), x.shape[1] / 16)
        return self.classify(self.third(x.relu()).relu().mean((2, 3)))


def test_what_the_trace_does_not_see_is_found_by_comparing():
    """The group to blame is found and named; the others are cut to the same budget."""
    torch.manual_seed(0)
    model = Offset().eval()
    pruned = prune_channels(model, (3, 12, 12), macs=0.6)
    assert re.match(r"cut, it computes something else than silenced, by 0\.\d+ standard dev", pruned.whole["first"])
    assert pruned.model.first.out_channels == 32 > pruned.model.second.out_channels
    assert pruned.macs_after <= 0.6 * pruned.macs_before
    mask_(masked := copy.deepcopy(model), pruned.cuts)
    x = torch.randn(4, 3, 12, 12)
    torch.testing.assert_close(pruned.model(x), masked(x), rtol=1e-4, atol=1e-5)


def test_a_forward_that_draws_numbers_is_compared_on_the_same_ones():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.classify = nn.Conv2d(3, 32, 3), nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classify(self.first(x).mean((2, 3))) + torch.rand(1, device=x.device)

    pruned = prune_channels(Noisy().eval(), (3, 8, 8), macs=0.6)
    assert pruned.unchecked == ""
    assert pruned.model.first.out_channels < 32
