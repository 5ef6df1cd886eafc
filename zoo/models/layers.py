"""Blocks that several families share.

Every size that surgery may change is a plain attribute of its module, and no forward pass relies on another: a pruned
model is the same modules with smaller tensors and new numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError, did_you_mean

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),  # over a whole image, as Ba et al. 2016 have it
    "group": lambda channels: nn.GroupNorm(_groups(channels), channels),  # Wu & He 2018
    "none": lambda channels: nn.Identity(),
}
# the names of activations that are part of a mechanism, squeeze-and-excite's say, and not replaced: ours, torchvision's
GATES = ("gate", "scale_activation")


def scaled_width(channels: int, scale: float, *, divisor: int = 1) -> int:
    """`channels` x `scale`, rounded to a multiple of `divisor`, at least `divisor`, and never more than 10% below.

    TensorFlow's rule for EfficientNet and MobileNet (`round_filters`, tensorflow/tpu).
    """
    wanted = channels * scale
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


class Conv2dSame(nn.Conv2d):
    """TensorFlow's SAME padding: as little as gives ceil(size / stride) outputs, the odd pixel below and to the right.

    PyTorch pads both sides alike, which for a stride of 2 reads other pixels. The padding follows the image's size.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, O, ceil(H / stride), ceil(W / stride))
        (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = (
            self.kernel_size,
            self.stride,
            self.dilation,
        )
        pad_h = _same_padding(x.shape[-2], kernel_h, stride_h, dilation_h)
        pad_w = _same_padding(x.shape[-1], kernel_w, stride_w, dilation_w)
        x = F.pad(x, (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> int:
    outputs = -(-size // stride)
    return max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, a sample's whole branch is zeroed with probability `p`.

    What is kept is divided by 1 - p, so that the expected sum is the one seen in evaluation.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop_path={p} must be in [0, 1): the probability that a branch is skipped in training")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)  # (B, 1, ...)
        return x * mask / keep

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al. 2021, https://arxiv.org/abs/2103.17239)."""

    def __init__(self, width: int, *, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762); q, k and v in one Linear.

    Attributes:
        num_heads, head_dim: what qkv's outputs are cut into: (3, num_heads, head_dim), in this order.
        scale: the softmax temperature, head_dim ** -0.5 at birth. A cut of head_dim leaves it alone.
    """

    def __init__(self, width: int, *, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width={width} is not a multiple of num_heads={num_heads}: all heads are equally wide")
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask`, which broadcasts to (B, N, L, L), is True where a query (row) may look at a key (column)."""
        # B batch, L tokens, D width, N heads, H width of a head
        B, L, _ = x_BLD.shape
        qkv_3BNLH = self.qkv(x_BLD).reshape(B, L, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q_BNLH, k_BNLH, v_BNLH = qkv_3BNLH.unbind(0)
        out_BNLH = F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, attn_mask=mask, scale=self.scale)
        out = out_BNLH.transpose(1, 2).reshape(B, L, self.num_heads * self.head_dim)
        return self.proj_drop(self.proj(out))  # type: ignore[no-any-return]  # (B, L, D)


class Mlp(nn.Module):
    """Linear, GELU, Linear on each token."""

    def __init__(self, width: int, *, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, width)
        self.drop2 = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))  # type: ignore[no-any-return]


def replace_activations_(model: nn.Module, name: str) -> None:
    """Put the activation of that name in the place of every other, gates excepted.

    Raises:
        UsageError: there is none of that name, or the model has no activation of a module's own.
    """
    if name not in ACTIVATIONS:
        raise UsageError(
            f"unknown activation {name!r}: {did_you_mean(name, ACTIVATIONS, 'one of ' + ', '.join(ACTIVATIONS))}"
        )
    known = (*(type(make()) for make in ACTIVATIONS.values()), nn.ReLU6, nn.Hardswish)
    replaced = 0
    for parent in list(model.modules()):
        for leaf, module in list(parent.named_children()):
            if isinstance(module, known) and leaf not in GATES:
                setattr(parent, leaf, ACTIVATIONS[name]())
                replaced += 1
    if not replaced:
        raise UsageError(f"activation={name!r}: {type(model).__name__} has no activation whose place it could take")


def replace_norms_(model: nn.Module, name: str) -> None:
    """Put the normalization of that name in the place of every BatchNorm.

    For "none", the convolution before it, if it left its bias to the BatchNorm, gets one. "batch" leaves a model as
    it is.

    Raises:
        UsageError: there is none of that name, or the model has no BatchNorm, or one that activates too (timm's).
    """
    if name not in NORMS:
        raise UsageError(f"unknown norm {name!r}: {did_you_mean(name, NORMS, 'one of ' + ', '.join(NORMS))}")
    if name == "batch" and any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return  # with the epsilon and momentum of its paper
    before: nn.Conv2d | None = None  # the convolution defined last
    replaced = 0
    for parent in list(model.modules()):
        for leaf, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d):
                before = module
            elif isinstance(module, nn.BatchNorm2d):
                if type(module) is not nn.BatchNorm2d:
                    raise UsageError(
                        f"norm={name!r}: {type(module).__name__} does more than normalize; a zoo model is wanted"
                    )
                setattr(parent, leaf, NORMS[name](module.num_features))
                replaced += 1
                if name == "none" and before is not None and before.bias is None:
                    if before.out_channels == module.num_features:
                        before.bias = nn.Parameter(before.weight.new_zeros(module.num_features))
    if not replaced:
        raise UsageError(f"norm={name!r}: {type(model).__name__} has no BatchNorm whose place it could take")


def _groups(channels: int, most: int = 32) -> int:
    """32 groups (Wu & He 2018, Table 3), or as many below as divide the channels."""
    return next(groups for groups in range(min(most, channels), 0, -1) if channels % groups == 0)
