"""Masks: which weights are zero for good. While a model trains they are buffers beside the weights.

They are saved with every checkpoint, so that holding the zeros is a function of the model alone. A finished model has
no masks: its zeros are its masks, and `attach_masks_` finds them again.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zoo.errors import SlimzooError

BUFFER = "weight_mask"  # bool, True where the weight lives
Masks = Mapping[str, Tensor]


def sparse_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers whose weights may become zero one by one: all convolutions and linear layers, by dotted name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def nonzeros(model: nn.Module) -> dict[str, Tensor]:
    """Name -> bool of the weight's shape, True where it is not zero."""
    return {name: layer.weight.detach() != 0 for name, layer in sparse_layers(model).items()}


def density(model: nn.Module) -> float:
    """Share of the weights of convolutions and linear layers that are not zero; biases and norms do not count."""
    found = nonzeros(model)
    return sum(int(flags.sum()) for flags in found.values()) / max(1, sum(flags.numel() for flags in found.values()))


def attach_masks_(model: nn.Module) -> None:
    """Give every sparse layer a mask of its present zeros."""
    for name, flags in nonzeros(model).items():
        model.get_submodule(name).register_buffer(BUFFER, flags)


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """Name -> mask of the layers that have one."""
    return {name: layer.get_buffer(BUFFER) for name, layer in sparse_layers(model).items() if BUFFER in layer._buffers}


@torch.no_grad()
def set_masks_(model: nn.Module, masks: Masks) -> None:
    """Draw the masks of the model anew; a weight that is zero lives under no mask."""
    for name, mask in masks_of(model).items():
        mask.copy_(masks[name] & (model.get_submodule(name).weight != 0))


@torch.no_grad()
def hold_(model: nn.Module) -> None:
    """Put the zeros back that an optimizer's step has moved."""
    zero_(model, masks_of(model))


@torch.no_grad()
def zero_(model: nn.Module, masks: Masks) -> None:
    """Make the weights zero that the masks do not let live."""
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        weight.masked_fill_(~mask.to(weight.device), 0.0)


def hold_zeros(model: nn.Module, step: int) -> None:
    """`hold_` as an `after_step` of the training loop: recovery that keeps every zero."""
    hold_(model)


def detach_masks_(model: nn.Module) -> None:
    """Take the masks away from a model whose zeros are where they say.

    Raises:
        SlimzooError: see `check_zeros`.
    """
    masks = masks_of(model)
    check_zeros(model, masks)
    for name in masks:
        del model.get_submodule(name)._buffers[BUFFER]


def check_zeros(model: nn.Module, masks: Masks) -> None:
    """Refuse a model that lost zeros.

    Args:
        masks: name -> True where a weight may live, as `nonzeros` of the sparse model gives them.

    Raises:
        SlimzooError: a weight lives where it was zero; the layer is named. A layer changed its shape.
    """
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        if weight.shape != mask.shape:
            raise SlimzooError(
                f"{name} was {tuple(mask.shape)} and is {tuple(weight.shape)}: its zeros cannot be compared; cut "
                "channels before weights are made sparse"
            )
        lost = int((weight.detach().cpu() != 0)[~mask.cpu()].sum())
        if lost:
            raise SlimzooError(
                f"{name} lost {lost} of its {int((~mask).sum())} zeros: the last step trained without holding them; "
                "pass after_step=hold_zeros to it (and no ema, which averages zeros away)"
            )
