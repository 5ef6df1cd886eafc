"""Layers that people use, one at a time in a small network: the cut is the mask, or what stays says truly why."""

import re

import pytest
import torch
import torch.nn.functional as F
from shaken_models import shake_
from small_networks import WIDTH, Around, Pooled, Tokens
from torch import nn
from torch.nn.utils import parametrizations

from compress.dependency.group import CLASSES
from compress.dependency.groups import find_groups

ACTIVATIONS = (
    ("ReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Hardswish", "LeakyReLU", "RReLU", "Softplus", "Tanh"),
    ("ReLU6", "Hardsigmoid", "Hardtanh", "Hardshrink", "Softshrink", "Tanhshrink", "Softsign", "LogSigmoid", "Sigmoid"),
    ("Identity", "Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout"),
)
MODES = ("nearest", "bilinear", "bicubic", "nearest-exact", "area")
W, HALF = WIDTH, WIDTH // 2
CUT = {  # everything but the classes may go
    **{
        ", ".join(names): lambda names=names: Around(nn.Sequential(*(getattr(nn, name)() for name in names)))
        for names in ACTIVATIONS
    },
    "Threshold": lambda: Around(nn.Threshold(0.1, 0.5)),
    "PReLU": lambda: Around(nn.PReLU(W)),
    "PReLU of one": lambda: Around(nn.PReLU()),
    "PReLU shared": lambda: Around(nn.PReLU(W), lambda m, x: m(m(x) - 1)),
    "GLU": lambda: Around(nn.GLU(1), out=HALF),
    "BatchNorm": lambda: Around(
        nn.Sequential(nn.BatchNorm2d(W, track_running_stats=False), nn.BatchNorm2d(W, affine=False), nn.BatchNorm2d(W))
    ),
    "InstanceNorm": lambda: Around(
        nn.Sequential(
            nn.InstanceNorm2d(W),
            nn.ReLU(),
            nn.InstanceNorm2d(W, affine=True),
            nn.ReLU(),
            nn.InstanceNorm2d(W, affine=True, track_running_stats=True),
        )
    ),
    "GroupNorm of single channels": lambda: Around(nn.GroupNorm(W, W)),
    "pooling": lambda: Around(nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.LPPool2d(2, 2))),
    "adaptive": lambda: Around(nn.Sequential(nn.AdaptiveMaxPool2d(5), nn.AdaptiveAvgPool2d(1))),
    "unpooling": lambda: Around(None, lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
    "resizing": lambda: Around(
        nn.Sequential(*(nn.Upsample(size=(n, n), mode=mode) for n, mode in enumerate(MODES, 5)))
    ),
    "padding": lambda: Around(nn.Sequential(nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.ZeroPad2d(1))),
    "PixelShuffle": lambda: Around(nn.PixelShuffle(2), out=W // 4),
    "PixelUnshuffle": lambda: Around(nn.PixelUnshuffle(2), out=4 * W),
    "Conv reflecting": lambda: Around(nn.Conv2d(W, 20, 3, padding=1, padding_mode="reflect"), out=20),
    "Conv in groups": lambda: Around(nn.Conv2d(W, 20, 3, groups=4), out=20),
    "Conv depthwise": lambda: Around(nn.Conv2d(W, 2 * W, 3, groups=W), out=2 * W),
    "ConvTranspose": lambda: Around(nn.ConvTranspose2d(W, 20, 3, 2), out=20),
    "ConvTranspose in groups": lambda: Around(nn.ConvTranspose2d(W, 20, 3, 2, groups=4), out=20),
    "ConvTranspose in groups, no bias": lambda: Around(nn.ConvTranspose2d(W, 20, 3, groups=4, bias=False), out=20),
    "ConvTranspose depthwise": lambda: Around(nn.ConvTranspose2d(W, W, 3, 2, groups=W)),
    "ConvTranspose depthwise, twice": lambda: Around(nn.ConvTranspose2d(W, 2 * W, 3, 2, groups=W), out=2 * W),
    "one dimension": lambda: Around(
        nn.Sequential(
            nn.Conv1d(W, 20, 3),
            nn.BatchNorm1d(20),
            nn.PReLU(20),
            nn.MaxPool1d(2),
            nn.LPPool1d(2, 2),
            nn.ReflectionPad1d(1),
            nn.ReplicationPad1d(1),
            nn.Upsample(scale_factor=2, mode="linear"),
            nn.ConvTranspose1d(20, 12, 3),
            nn.AvgPool1d(2),
            nn.AdaptiveAvgPool1d(3),
        ),
        out=12,
        dims=1,
    ),
    "three dimensions": lambda: Around(
        nn.Sequential(
            nn.Conv3d(W, 20, 3, padding=1),
            nn.BatchNorm3d(20),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.ReplicationPad3d(1),
            nn.ReflectionPad3d(1),
            nn.ConvTranspose3d(20, 12, 2),
            nn.InstanceNorm3d(12, affine=True),
            nn.AvgPool3d(2),
            nn.Upsample(scale_factor=2, mode="trilinear"),
            nn.Upsample(scale_factor=2),
            nn.AdaptiveMaxPool3d(3),
            nn.AdaptiveAvgPool3d(2),
        ),
        out=12,
        dims=3,
    ),
    "fold and unfold": lambda: Around(
        None, lambda m, x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1) / 9
    ),
    "columns of windows": lambda: Pooled(nn.Conv1d(4 * W, 12, 1), lambda m, x: m(F.unfold(x, 2, stride=2)), out=48),
    "grid_sample": lambda: Around(None, turned),
    "squeeze and excite": lambda: Around(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(W, 8, 1), nn.ReLU(), nn.Conv2d(8, W, 1), nn.Sigmoid()),
        lambda m, x: x * m(x),
    ),
    "lazy": lambda: Around(nn.LazyConv2d(20, 3), out=20),
    "one layer twice": lambda: Around(nn.Conv2d(W, W, 3, padding=1), lambda m, x: m(m(x).relu())),
    "einsum": lambda: Around(nn.Linear(W, 20), lambda m, x: torch.einsum("oc,bchw->bohw", m.weight, x), out=20),
    "gates": lambda: Around(nn.PReLU(W), lambda m, x: torch.lerp(x, x.tanh(), m.weight.sigmoid()[:, None, None])),
    "table of positions": lambda: Around(
        nn.Embedding(8, W), lambda m, x: x + m(torch.arange(8, device=x.device)).t()[None, :, :, None]
    ),
    "statistics": lambda: Pooled(
        None,
        lambda m, x: torch.cat([x.mean((2, 3)), x.std((2, 3)), x.flatten(2).sort(2).values[..., -1]], 1),
        out=3 * W,
    ),
    "bilinear pooling": lambda: Pooled(
        None, lambda m, x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)), out=W * W
    ),
    "concatenated ReLU": lambda: Around(None, lambda m, x: torch.cat([x, -x], 1).relu(), out=2 * W),
}


def turned(middle: nn.Module, x: torch.Tensor) -> torch.Tensor:
    turn = torch.tensor([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0]], dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)


def cell(middle: nn.Module, x: torch.Tensor) -> torch.Tensor:
    state, states = None, []
    for step in range(4):
        state = middle(x[:, step], state)
        states.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(states, 1)


HIDDEN = r"middle.*: no rule to cut the hidden width of a recurrent layer \(middle\)"
TOGETHER = "first: all its channels are needed together"
PARAMETRIZED = r"middle.*: its weight is computed by a parametrization, to be removed first \(middle\)"
WHOLE = {  # (network, what is left whole and why)
    "Softmax2d": (lambda: Around(nn.Softmax2d()), TOGETHER),
    "Softmin": (lambda: Around(nn.Softmin(1)), TOGETHER),
    "LocalResponseNorm": (lambda: Around(nn.LocalResponseNorm(5)), "first: it is padded to a fixed width"),
    "GroupNorm": (lambda: Around(nn.GroupNorm(4, W)), "first group widths: a GroupNorm normalizes over it"),
    "LayerNorm": (lambda: Tokens(nn.LayerNorm(W)), "first: a LayerNorm normalizes over it"),
    "RMSNorm": (lambda: Tokens(nn.RMSNorm(W)), TOGETHER),
    "normalize": (lambda: Around(None, lambda m, x: F.normalize(x, dim=1)), TOGETHER),
    "ChannelShuffle": (lambda: Around(nn.ChannelShuffle(4)), "first blocks: its forward splits the channels into that"),
    "FractionalMaxPool2d": (
        lambda: Around(nn.FractionalMaxPool2d(2, output_size=4)),
        "first: FractionalMaxPool2d `middle` uses aten.fractional_max_pool2d, which has no rule",
    ),
    "weight_norm": (lambda: Around(parametrizations.weight_norm(nn.Conv2d(W, 20, 3)), out=20), PARAMETRIZED),
    "spectral_norm": (lambda: Around(parametrizations.spectral_norm(nn.Conv2d(W, 20, 3)), out=20), PARAMETRIZED),
    "orthogonal": (lambda: Around(parametrizations.orthogonal(nn.Conv2d(W, 20, 1)), out=20), PARAMETRIZED),
    "MultiheadAttention": (
        lambda: Tokens(nn.MultiheadAttention(W, 4, batch_first=True), lambda m, x: m(x, x, x)[0]),
        "first: its forward fixes a shape",
    ),
    "TransformerEncoderLayer": (
        lambda: Tokens(nn.TransformerEncoderLayer(W, 4, 40, batch_first=True, norm_first=True)),
        r"first: a LayerNorm normalizes over it \(middle.norm1\)",
    ),
    **{
        f"{kind} {depth} {both}": (
            lambda kind=kind, depth=depth, both=both: Tokens(
                getattr(nn, kind)(W, 20, depth, bidirectional=both, batch_first=True),
                lambda m, x: m(x)[0],
                out=40 if both else 20,
            ),
            HIDDEN,
        )
        for kind, depth, both in (("LSTM", 1, False), ("LSTM", 2, True), ("GRU", 2, True), ("RNN", 1, True))
    },
    "LSTMCell": (lambda: Tokens(nn.LSTMCell(W, 20), cell, out=20), HIDDEN),
    "GRUCell": (lambda: Tokens(nn.GRUCell(W, 20), cell, out=20), HIDDEN),
}


def network(make) -> nn.Module:
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        model(torch.zeros(2, *model.size))  # lazy layers learn their widths
    return shake_(model)


def whole(model: nn.Module) -> list[str]:
    left = find_groups(model, torch.empty(1, *model.size, device="meta")).whole
    return [f"{name}: {why}" for name, why in left.items() if why != CLASSES]


@pytest.mark.parametrize("name", CUT)
def test_cut(name, assert_cut_is_mask):
    model = network(CUT[name])
    assert whole(model) == []
    smaller = assert_cut_is_mask(model, model.size)
    assert smaller.first.out_channels < WIDTH


@pytest.mark.parametrize("name", WHOLE)
def test_left_whole(name, assert_cut_is_mask):
    """The layers around it are cut all the same; where a layer is recurrent, what enters it, too."""
    make, reason = WHOLE[name]
    model = network(make)
    assert any(re.match(reason, line) for line in whole(model)), whole(model)
    smaller = assert_cut_is_mask(model, model.size)
    second = smaller.second
    assert (second.out_channels if isinstance(second, nn.Conv2d) else second.out_features) < 16
    if reason == HIDDEN:
        assert smaller.first.out_channels == smaller.middle.input_size < WIDTH
        assert smaller.middle.hidden_size == 20
