"""Tensors whose living values are few: tied while the model trains, rounded when it is done.

Like masks, the assignment is a buffer beside each tensor while training goes on, so that every checkpoint has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.share.kmeans import kmeans
from compress.sparse.masks import sparse_layers
from zoo.errors import SlimzooError

BUFFER = "{}_code"  # int16: 0 for a zero, the number of its shared value, or FREE
FREE = -1  # living and not yet shared
MOST_VALUES = 4096


def shareable(model: nn.Module) -> dict[str, Tensor]:
    """Name -> the weights and biases of convolutions and linear layers."""
    found = {}
    for name, layer in sparse_layers(model).items():
        for leaf in ("weight", "bias"):
            tensor = getattr(layer, leaf)
            if isinstance(tensor, Tensor):
                found[f"{name}.{leaf}" if name else leaf] = tensor
    return found


def different_values(tensor: Tensor) -> int:
    """How many different values it has besides 0."""
    return int(np.count_nonzero(np.unique(tensor.detach().cpu().numpy())))


@torch.no_grad()
def share_(model: nn.Module, values: Mapping[str, int], *, bit_price: float = 0.0, portion: float = 1.0) -> None:
    """Replace the living values of each named tensor by that many, and attach which is which.

    Args:
        values: tensor -> how many.
        bit_price: see `kmeans`, in units of the tensor's mean squared living value.
        portion: of each tensor's living values, those that are nearest to a shared value; the others stay free.
    """
    tensors = shareable(model)
    for name, count in values.items():
        tensor = tensors[name]
        code = torch.zeros(tensor.shape, dtype=torch.int16, device=tensor.device)
        alive = tensor != 0
        tensor[~alive] = 0.0  # also what was -0.0, which is another bit pattern
        if alive.any():
            living = tensor[alive].double().cpu().numpy()
            centroids, codes = kmeans(living, min(count, MOST_VALUES), bit_price=bit_price * float((living**2).mean()))
            shared = centroids[codes]
            order = np.abs(living - shared).argsort(kind="stable")
            free = order[math.ceil(portion * len(order)) :]
            shared[free], codes[free] = living[free], FREE - 1
            tensor[alive] = torch.from_numpy(shared).to(tensor)
            code[alive] = torch.from_numpy(codes + 1).to(code)
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_buffer(BUFFER.format(leaf), code)


def codes_of(model: nn.Module) -> dict[str, Tensor]:
    """Name -> code of the tensors that have one."""
    found = {}
    for name in shareable(model):
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if BUFFER.format(leaf) in module._buffers:
            found[name] = module.get_buffer(BUFFER.format(leaf))
    return found


@torch.no_grad()
def tie_(model: nn.Module) -> None:
    """Give all that share a value their mean, and zeros 0: the nearest model that is shared as the codes say.

    After a step of gradient descent, this is a step of gradient descent in the space of tied weights (it is the
    orthogonal projection onto it); Han et al. 2016, sec. 3.3, take the sum, which is the same with rates that grow with
    the number of sharers.
    """
    tensors = shareable(model)
    for name, code in codes_of(model).items():
        tensor, living = tensors[name], code.nonzero(as_tuple=True)  # few, as a rule
        kinds, values = code[living].long(), tensor[living].double()
        tied = kinds.clamp(min=0)  # the free ones together, as 0, whose mean nothing takes
        sums = torch.zeros(int(code.max()) + 1, dtype=torch.float64, device=tensor.device).index_add_(0, tied, values)
        means = sums / torch.bincount(tied, minlength=len(sums)).clamp(min=1)
        tensor.zero_()
        tensor[living] = torch.where(kinds == FREE, values, means[tied]).to(tensor)


@torch.no_grad()
def detach_codes_(model: nn.Module, *, mantissa: int = 23) -> None:
    """Take the codes away, and round the shared values to that many bits of mantissa, which a coded file then saves.

    Raises:
        SlimzooError: see `check_shared`.
    """
    codes, tensors = codes_of(model), shareable(model)
    check_shared(model, codes)
    for name in codes:
        tensors[name].copy_(rounded(tensors[name], mantissa))
        owner, _, leaf = name.rpartition(".")
        del model.get_submodule(owner)._buffers[BUFFER.format(leaf)]


def check_shared(model: nn.Module, codes: Mapping[str, Tensor]) -> None:
    """Refuse a model that lost its sharing.

    Raises:
        SlimzooError: a zero lives, or tensors have more values than codes.
    """
    for name, code in codes.items():
        tensor = shareable(model)[name].detach()
        lost = int((tensor[code == 0] != 0).sum())
        if lost:
            raise SlimzooError(
                f"{name} lost {lost} of its {int((code == 0).sum())} zeros: the last step trained without "
                "tie_ after each step"
            )
        if (code == FREE).any():
            raise SlimzooError(f"{name} has {int((code == FREE).sum())} weights that share no value yet")
        most = int(code.max())
        if different_values(tensor) > most:
            raise SlimzooError(
                f"{name} has {different_values(tensor)} different values and shared {most}: the last step trained "
                "without tie_ after each step"
            )


def rounded(tensor: Tensor, mantissa: int) -> Tensor:
    """float32 to the nearest with `mantissa` bits behind the leading one; 23 changes nothing."""
    if mantissa >= 23:
        return tensor
    spare = 23 - mantissa
    bits = tensor.detach().float().contiguous().view(torch.int32)
    return ((bits + (1 << (spare - 1))) & -(1 << spare)).view(torch.float32)
