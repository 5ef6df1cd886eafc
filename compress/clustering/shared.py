"""Tensors whose living values are few: tied while the model trains, rounded when it is done.

Like masks, the assignment and what it rounded away are buffers beside each tensor while training goes on, so that every
checkpoint has them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from compress.clustering.kmeans import kmeans, territories
from compress.recovery.masks import sparse_layers
from zoo.errors import SlimzooError

CODE = "{}_code"  # int16: 0 for a zero, or the number of its shared value, from 1
GAP = "{}_gap"  # what the tensor would be without sharing, less what it is
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
def share_(model: nn.Module, values: Mapping[str, int], *, bit_price: float = 0.0) -> None:
    """Replace the living values of each named tensor by that many, and attach codes and the values as they were.

    Args:
        values: tensor -> how many.
        bit_price: see `kmeans`, in units of the tensor's mean squared living value.
    """
    tensors = shareable(model)
    for name, count in values.items():
        tensor = tensors[name]
        code, gap = torch.zeros_like(tensor, dtype=torch.int16), torch.zeros_like(tensor)
        alive = tensor != 0
        tensor[~alive] = 0.0  # also what was -0.0, which is another bit pattern
        if alive.any():
            living = tensor[alive].double().cpu().numpy()
            centroids, codes = kmeans(living, min(count, MOST_VALUES), bit_price=bit_price * float((living**2).mean()))
            gap[alive] = torch.from_numpy(living - centroids[codes]).to(tensor)
            tensor[alive] = torch.from_numpy(centroids[codes]).to(tensor)
            code[alive] = torch.from_numpy(codes + 1).to(code)
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_buffer(CODE.format(leaf), code)
        model.get_submodule(owner).register_buffer(GAP.format(leaf), gap)


@torch.no_grad()
def share_again_(model: nn.Module, *, bit_price: float = 0.0) -> None:
    """After an optimizer's step: each tensor as it would be without sharing takes that step, and is shared anew.

    The gradient at the shared values moves the unshared ones (straight-through, Bengio et al. 2013, arXiv 1308.3432,
    sec. 3), so that many small steps bring a weight to another value. The values are one round of Lloyd's algorithm on.

    Args:
        bit_price: see `share_`.
    """
    tensors, gaps = shareable(model), _buffers(model, GAP)
    for name, code in codes_of(model).items():
        tensor, gap, living = tensors[name], gaps[name], code.nonzero(as_tuple=True)
        wanted = (tensor[living] + gap[living]).double()
        tensor.zero_()
        if not len(wanted):
            continue
        kinds = code[living].long() - 1
        means, sharers = _means(wanted, kinds)
        means, order = means[sharers > 0].sort()
        price = None
        if bit_price:
            shares = sharers[sharers > 0][order] / len(wanted)
            price = (-bit_price * wanted.square().mean() * shares.log2()).cpu().numpy()
        kept, bounds = territories(means.cpu().numpy(), price)
        found = torch.from_numpy(kept).to(tensor.device)[torch.bucketize(wanted, torch.from_numpy(bounds).to(wanted))]
        tensor[living] = means[found].to(tensor)
        gap[living] = (wanted - means[found]).to(gap)
        code[living] = (found + 1).to(code)


def codes_of(model: nn.Module) -> dict[str, Tensor]:
    """Name -> code of the tensors that have one."""
    return _buffers(model, CODE)


def _buffers(model: nn.Module, pattern: str) -> dict[str, Tensor]:
    found = {}
    for name in shareable(model):
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if pattern.format(leaf) in module._buffers:
            found[name] = module.get_buffer(pattern.format(leaf))
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
        tensor.zero_()
        tensor[living] = _means(values, kinds)[0][kinds].to(tensor)


def _means(values: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and count of the values of each kind, from 0 to the largest; of a kind without values, 0 and 0."""
    counts = torch.bincount(kinds)
    sums = torch.zeros(len(counts), dtype=values.dtype, device=values.device).index_add_(0, kinds, values)
    return sums / counts.clamp(min=1), counts


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
        for pattern in (CODE, GAP):
            del model.get_submodule(owner)._buffers[pattern.format(leaf)]


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
