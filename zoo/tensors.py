"""A model's parameters and buffers: every one given its value, or one replaced by another of any shape."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def load_tensors_(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give every parameter and buffer its value, as a state dict of this very model would.

    Files and plain dicts hold tensors alone. A module that reads its state by a version (torchvision's MNASNet refuses
    one without) finds that of its own class.

    Raises:
        RuntimeError: a tensor is missing, too many, or of another shape.
    """
    state = OrderedDict(tensors)
    setattr(state, "_metadata", model.state_dict()._metadata)  # type: ignore[attr-defined]  # noqa: B010
    model.load_state_dict(state, strict=True)


def replace_tensor_(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put `tensor` where the module keeps its parameter or buffer `name`."""
    if name in module._parameters:
        old = module._parameters[name]
        setattr(module, name, nn.Parameter(tensor.detach(), requires_grad=old is None or old.requires_grad))
    else:
        module._buffers[name] = tensor.detach()


def fingerprint(model: nn.Module) -> str:
    """Eight hexadecimal digits that depend on every value of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:8]
