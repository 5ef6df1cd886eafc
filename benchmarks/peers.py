"""The other implementation of a model of the zoo, and a training step of either."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
import torchvision
from torch import Tensor, nn

from zoo.models.registry import model_entry


def peer_of(name: str) -> nn.Module | None:
    """The implementation whose parameter names a model of the zoo has, if there is one."""
    entry = model_entry(name)
    if entry.family not in ("convnext", "efficientnet") and name in torchvision.models.list_models(torchvision.models):
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return torchvision.models.get_model(name, **options)
    known_as = {"vit": f"{name}_patch16_224", "mobilenet_v1": "mobilenetv1_100"}.get(entry.family, name)
    return timm.create_model(known_as) if timm.is_model(known_as) else None


def without_dropout_(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    labels = torch.arange(len(x))

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return once
