"""Numbers that a module holds: followed to where its forward reads them, and set after a cut."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.dependency.groups import find_groups
from compress.pruning.allocate import uniformly
from compress.pruning.structured import prune_channels
from zoo.errors import UsageError


class Chance(nn.Module):
    """Attention over pixels in which everything is four: heads, their width, windows, pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = self.window = 4
        self.sizes = (4, 4, 4)
        self.qkv, self.proj = nn.Conv2d(8, 48, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        windows = self.qkv(x).view(b, self.num_heads, sum(self.sizes), h * w // self.window, self.window)
        q, k, v = windows.flatten(3).split(self.sizes, dim=2)
        out = v @ (q.transpose(2, 3) @ k).softmax(dim=-1)
        return self.proj(out.reshape(b, -1, h, w))


class Threefold(nn.Module):
    """One number in a multiple, and one that stands for two widths, which then stay equal."""

    def __init__(self) -> None:
        super().__init__()
        self.dim_head, self.hidden = 8, 12
        self.qkv, self.proj = nn.Conv2d(8, 2 * 24, 1), nn.Conv2d(16, 8, 1)
        self.up, self.gate, self.down = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 1), nn.Conv2d(24, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        q, k, v = self.qkv(x).view(b, -1, self.dim_head * 3, h * w).chunk(3, dim=2)
        x = x + self.proj((v @ (q.transpose(2, 3) @ k).softmax(-1)).reshape(b, -1, h, w))
        up, gate = self.up(x).view(b, self.hidden, h, w), self.gate(x).reshape(b, self.hidden, h, w).sigmoid()
        return self.down(torch.cat([up, gate], dim=1))


class Table(nn.Module):
    """A bias for each head, kept between passes until training starts again."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.kept: dict[str, torch.Tensor] = {}
        self.qkv, self.proj = nn.Conv2d(8, 96, 1), nn.Conv2d(32, 8, 1)
        self.table = nn.Parameter(torch.randn(4, 5))
        self.register_buffer("index", torch.arange(16 * 16).view(16, 16) % 5)

    def train(self, mode: bool = True) -> "Table":
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        if "cpu" not in self.kept:
            self.kept["cpu"] = self.table[:, self.index]
        q, k, v = self.qkv(x).view(b, 3, self.num_heads, -1, h * w).unbind(1)
        out = v @ (q.transpose(2, 3) @ k + self.kept["cpu"]).softmax(dim=-1)
        return self.proj(out.flatten(1, 2).unflatten(-1, (h, w)))


class Pooled(nn.Module):
    """Heads that are taken for images, and pooled by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 2, 16
        self.qkv, self.proj = nn.Linear(8, 96), nn.Linear(32, 8)
        self.pool = nn.Conv2d(16, 16, 3, padding=1, groups=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).view(b, h * w, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 4, 1)
        q = self.pool(qkv[0].reshape(-1, self.head_dim, h, w)).view(b, self.num_heads, self.head_dim, h * w)
        out = qkv[2] @ (q.transpose(2, 3) @ qkv[1]).softmax(dim=-1)
        return self.proj(out.permute(0, 3, 1, 2).reshape(b, h * w, -1)).transpose(1, 2).unflatten(-1, (h, w))


class Standardized(nn.Conv2d):
    """Each row of the weight has mean 0 and variance 1 (Qiao et al. 2019, arXiv 1903.10520)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.weight.reshape(1, len(self.weight), -1)
        weight = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias)


class FixedBlock(nn.Module):
    """Attention that trusts its input's width, and an MLP."""

    def __init__(self, normed: bool = True) -> None:
        super().__init__()
        self.num_heads = 2
        self.norm = nn.LayerNorm(8) if normed else nn.Identity()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        out = ((q @ k.transpose(-2, -1)).softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
        x = x + self.proj(out)
        return x + self.down(self.up(x).relu())


class Tokens(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)


class Pool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1 if x.dim() == 3 else (2, 3))


def around(body: nn.Module, pool: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), body, pool or Pool(), nn.Linear(8, 5)).eval()


@pytest.mark.parametrize("body", [Chance, Threefold, Table, Pooled])
def test_numbers_that_a_forward_reads(body, assert_cut_is_mask):
    torch.manual_seed(0)
    model = around(body())
    grouping = find_groups(model, torch.zeros(1, 3, 4, 4))
    assert {"heads", "head widths"} & {group.kind for group in grouping.groups}, grouping.whole
    assert all(reason == "its outputs are the classes" for reason in grouping.whole.values()), grouping.whole
    for share in (0.7, 0.5):
        assert_cut_is_mask(model, (3, 4, 4), share=share)


def test_what_a_forward_has_kept_goes():
    """The model has run, and so keeps a table that is as wide as it was."""
    torch.manual_seed(0)
    model, images = around(Table()), torch.randn(2, 3, 4, 4)
    expected = model(images)
    pruned = prune_channels(model, (3, 4, 4), macs=0.5, allocation=uniformly)
    assert any(cut.group.kind == "heads" and len(cut.keep) < cut.group.width for cut in pruned.cuts)
    assert pruned.model(images).shape == expected.shape
    assert torch.equal(model(images), expected)


def test_one_number_for_two_widths():
    groups = {g.name: g for g in find_groups(around(Threefold()), torch.zeros(1, 3, 4, 4)).groups}
    assert groups["1.up"].tied == groups["1.gate"].tied is not None


def test_fixed_spots_of_many_blocks_are_found_together(assert_cut_is_mask):
    """24 blocks with a fixed shape each: their attention stays, for the true reason, and their MLPs are cut."""
    model = around(nn.Sequential(Tokens(), *(FixedBlock() for _ in range(24))))
    grouping = find_groups(model, torch.zeros(1, 3, 4, 4))
    assert {group.name for group in grouping.groups} == {f"1.{i}.up" for i in range(1, 25)}
    for i in range(1, 25):
        reason = grouping.whole[f"1.{i}.qkv heads"]
        assert re.search(r"fixes a shape.*dependency/test_attributes\.py:\d+", reason), reason
    assert_cut_is_mask(model, (3, 4, 4))


def test_standardized_weights_count_as_normalized(assert_cut_is_mask):
    model = around(nn.Sequential(Standardized(8, 16, 1), nn.ReLU(), Standardized(16, 8, 1), nn.ReLU()))
    grouping = find_groups(model, torch.zeros(1, 3, 4, 4))
    assert "a norm takes its moments over it" in grouping.whole["1.0"]
    assert_cut_is_mask(model, (3, 4, 4), normalized=True)


def test_advice_names_what_norms_leave():
    """What `--normalized` is said to reach it reaches, and nothing below."""
    blocks = (nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Tokens(), *blocks, Pool(), nn.Linear(8, 5)).eval()
    options = {"round_to": 1, "floor": 0.5}
    with pytest.raises(UsageError, match=r"\(normalized\) it is [\d.]+%") as error:
        prune_channels(model, (3, 4, 4), macs=0.6, **options)
    reached = float(re.search(r"it is ([\d.]+)%", str(error.value)).group(1)) / 100
    found = prune_channels(model, (3, 4, 4), macs=reached + 1e-4, normalized=True, **options)
    assert found.macs_after / found.macs_before == pytest.approx(reached, abs=1e-3)
    with pytest.raises(UsageError, match="below what these groups can reach") as error:
        prune_channels(model, (3, 4, 4), macs=reached - 0.01, normalized=True, **options)
    assert "(normalized)" not in str(error.value)
