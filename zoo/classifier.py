"""What every classifier can be asked, whoever built it: its last Linear, what enters it, and a fresh one.

A zoo model, a timm model and a torchvision model differ in the name of that layer only, and here it is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def classifier_name(model: nn.Module) -> str:
    """Dotted name of the Linear that gives the logits: timm's own answer if it has one, else the last in module order.

    Raises:
        TypeError: there is none, or (distilled models) more than one.
    """
    named: list[tuple[str, nn.Module]] = list(model.named_modules())
    get_classifier: Callable[[], Any] | None = getattr(model, "get_classifier", None)
    if get_classifier is None:
        linears = [name for name, module in named if isinstance(module, nn.Linear)]
        if not linears:
            raise TypeError(f"{type(model).__name__} has no nn.Linear: it is not a classifier that can be refitted")
        return linears[-1]
    head = get_classifier()
    linears = [
        name
        for name, module in named
        if isinstance(module, nn.Linear) and isinstance(head, nn.Module) and any(module is m for m in head.modules())
    ]
    if len(linears) != 1:
        found = type(head).__name__ if isinstance(head, nn.Module) else f"{len(head)} layers"
        raise TypeError(f"{type(model).__name__} ends in {found}, and one nn.Linear is wanted")
    return linears[0]


def classifier(model: nn.Module) -> nn.Linear:
    """The Linear that gives the logits."""
    layer = model.get_submodule(classifier_name(model))
    assert isinstance(layer, nn.Linear)
    return layer


def features(model: nn.Module, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, F): what enters the classifier; in training mode, after the dropout before it."""
    seen: list[Tensor] = []
    handle = classifier(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model(x)
    finally:
        handle.remove()
    if not seen:
        raise TypeError(f"{type(model).__name__} did not call its classifier {classifier_name(model)!r}")
    return seen[-1].flatten(1)


def reset_classifier_(model: nn.Module, n: int, generator: torch.Generator | None = None) -> None:
    """Replace the classifier by a fresh one of `n` classes: weights N(0, 0.01^2) cut at +-2, zero bias.

    Such small weights start near equal logits whatever the features' size. They are drawn on the CPU in float32, so
    that a seed gives the same ones on every device.
    """
    if n < 1:
        raise ValueError(f"n={n} classes: at least 1 is wanted")
    name = classifier_name(model)
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    weight = torch.empty(n, old.in_features)
    nn.init.trunc_normal_(weight, std=0.01, generator=generator)
    fresh = nn.Linear(old.in_features, n, device="meta")  # no draw from the global generator
    fresh.weight = nn.Parameter(weight.to(old.weight))
    fresh.bias = nn.Parameter(old.weight.new_zeros(n))
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, fresh.train(old.training))
    if hasattr(model, "num_classes"):
        setattr(model, "num_classes", n)  # noqa: B010  # nn.Module declares tensors and modules only
