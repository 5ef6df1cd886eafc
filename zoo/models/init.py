"""How fresh weights are drawn, by name: Xavier, He, truncated normal, or every weight the same.

Each function walks a model and changes in place the weights of its convolutions, Linears, embeddings and recurrent
cells, or of those kinds that it is given; their biases become zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

from torch import Tensor, nn

from zoo.errors import UsageError, did_you_mean

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
LAYERS = (*CONVOLUTIONS, nn.Linear, nn.Embedding, nn.RNNBase)

Kinds = tuple[type[nn.Module], ...]


def xavier_uniform_(model: nn.Module, *, kinds: Kinds = LAYERS) -> None:
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)."""
    for weight, fan_in, fan_out in _weights(model, kinds):
        bound = (6 / (fan_in + fan_out)) ** 0.5
        nn.init.uniform_(weight, -bound, bound)


def xavier_normal_(model: nn.Module, *, kinds: Kinds = LAYERS) -> None:
    """N(0, 2 / (fan_in + fan_out)): the variance of `xavier_uniform_` (Glorot & Bengio 2010, eq. 12)."""
    for weight, fan_in, fan_out in _weights(model, kinds):
        nn.init.normal_(weight, std=(2 / (fan_in + fan_out)) ** 0.5)


def he_normal_(model: nn.Module, *, kinds: Kinds = LAYERS, fan: Literal["in", "out"] = "in") -> None:
    """N(0, 2 / fan): keeps the variance of what goes forward, or of gradients (He et al. 2015, eq. 10 and 14)."""
    for weight, fan_in, fan_out in _weights(model, kinds):
        nn.init.normal_(weight, std=(2 / (fan_in if fan == "in" else fan_out)) ** 0.5)


def he_normal_of_all_groups_(model: nn.Module) -> None:
    """torchvision's rule for MobileNets: convolutions by He's with a fan that counts all groups, so that a depthwise
    filter starts smaller than his rule has it; Linears N(0, 0.01^2).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def truncated_normal_(model: nn.Module, *, kinds: Kinds = LAYERS, std: float = 0.02) -> None:
    """N(0, std^2) cut at +-2 (Vision Transformers, after BERT)."""
    for weight, _, _ in _weights(model, kinds):
        nn.init.trunc_normal_(weight, std=std)


def constant_(model: nn.Module, *, kinds: Kinds = LAYERS, value: float = 0.01) -> None:
    """Every weight the same: all channels of a layer then stay equal for ever, whatever the training."""
    for weight, _, _ in _weights(model, kinds):
        nn.init.constant_(weight, value)


INITS: dict[str, Callable[[nn.Module], None]] = {
    "xavier_uniform": xavier_uniform_,
    "xavier_normal": xavier_normal_,
    "he_normal": he_normal_,
    "truncated_normal": truncated_normal_,
    "constant": constant_,
}


def initialize_(model: nn.Module, name: str) -> None:
    """Draw every weight afresh by the rule of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in INITS:
        raise UsageError(f"unknown init {name!r}: {did_you_mean(name, INITS, 'one of ' + ', '.join(INITS))}")
    INITS[name](model)


def _weights(model: nn.Module, kinds: Kinds) -> Iterator[tuple[Tensor, int, int]]:
    """Each weight with what one of its outputs is summed over, and what one of its inputs goes to; zeroes the biases.

    Both within a group: a depthwise filter is fed by one channel and feeds one.
    """
    for module in model.modules():
        if not isinstance(module, kinds):
            continue
        if isinstance(module, nn.RNNBase):
            yield from _recurrent_weights(module)
            continue
        weight = module.weight
        assert isinstance(weight, Tensor)
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)
        window = math.prod(weight.shape[2:])
        groups = module.groups if isinstance(module, CONVOLUTIONS) else 1
        fan_in, fan_out = weight.shape[1] * window, weight.shape[0] // groups * window
        transposed = isinstance(module, nn.ConvTranspose2d | nn.Embedding)
        yield (weight, fan_out, fan_in) if transposed else (weight, fan_in, fan_out)


def _recurrent_weights(module: nn.RNNBase) -> Iterator[tuple[Tensor, int, int]]:
    """The matrices of all gates stand on top of each other, (gates H, inputs); each gate is a layer of H outputs."""
    for name, parameter in module.named_parameters():
        if name.startswith("weight"):
            yield parameter, parameter.shape[1], module.hidden_size
        else:
            nn.init.zeros_(parameter)
