"""What every classifier can be asked, whoever built it: its last layer, what enters it, a fresh one, and its stages.

A zoo model, a timm model and a torchvision model differ in the name of that layer only, and here it is found. It is a
Linear, or, where pooling comes last (SqueezeNet, Network in Network), a 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import UsageError

CHOSEN = "_classifier_name"  # attribute of a user's module: the layer that was seen to give its logits, "" for none
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # GoogLeNet's and Inception's heads, which run in training only
ALMOST_EVERYTHING = 0.8  # a share of the parameters; ResNet-20's last stage has 0.76
COARSEST = 4  # stages before the classifier, where the model has that many parts


def classifier_name(model: nn.Module) -> str:
    """Dotted name of the layer that gives the logits: timm's own answer if it has one, else the last in module order.

    Raises:
        UsageError: there is none, or (distilled models) more than one.
    """
    chosen = vars(model).get(CHOSEN)
    if chosen == "":
        raise UsageError(f"no layer of {type(model).__name__} gives its logits: a model with one classifier is wanted")
    if chosen is not None:
        return str(chosen)
    get_classifier: Callable[[], Any] | None = getattr(model, "get_classifier", None)
    head = None if get_classifier is None else get_classifier()
    if head is None:
        layers: list[str] = [name for name, module in model.named_modules() if can_classify(module)]
        if not layers:
            raise UsageError(f"{type(model).__name__} has no nn.Linear: it is not a classifier that can be refitted")
        return layers[-1]
    inside = set(head.modules()) if isinstance(head, nn.Module) else set()
    layers = [name for name, module in model.named_modules() if module in inside and can_classify(module)]
    if not layers or (len(layers) > 1 and isinstance(head, nn.ModuleList)):
        found = type(head).__name__ if isinstance(head, nn.Module) else f"{len(head)} layers"
        raise UsageError(f"{type(model).__name__} ends in {found}: a model with one classifier is wanted")
    return layers[-1]  # of a head that is a small network of its own


def can_classify(module: nn.Module) -> bool:
    """Whether it is a layer of the kind that gives logits."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def has_classifier(model: nn.Module) -> bool:
    """Whether one layer gives the logits."""
    try:
        classifier_name(model)
    except UsageError:
        return False
    return True


def classifier(model: nn.Module) -> nn.Linear | nn.Conv2d:
    """The layer that gives the logits."""
    layer = model.get_submodule(classifier_name(model))
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


def features(model: nn.Module, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, F): what enters the classifier; in training mode, after the dropout before it.

    A convolution's input is averaged over the image, which is what pooling after it would have made of it.
    """
    seen: list[Tensor] = []
    handle = classifier(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model(x)
    finally:
        handle.remove()
    if not seen:
        raise TypeError(f"{type(model).__name__} did not call its classifier {classifier_name(model)!r}")
    return seen[-1].mean(dim=(2, 3)) if seen[-1].dim() == 4 else seen[-1].flatten(1)


def reset_classifier_(model: nn.Module, n: int, generator: torch.Generator | None = None) -> None:
    """Give the classifier `n` classes and fresh values: weights N(0, 0.01^2) cut at +-2, zero bias.

    Such small weights start near equal logits whatever the features' size. They are drawn on the CPU in float32, so
    that a seed gives the same ones on every device. The layer itself stays, of whatever kind it is (timm has Linears of
    its own), so that the model is still its architecture's; one without a bias stays without. Auxiliary classifiers of
    training (`AUXILIARY`) follow.
    """
    if n < 1:
        raise ValueError(f"n={n} classes: at least 1 is wanted")
    for name in (*auxiliary_names(model), classifier_name(model)):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        weight = torch.empty(n, *layer.weight.shape[1:])
        nn.init.trunc_normal_(weight, std=0.01, generator=generator)
        layer.weight = nn.Parameter(weight.to(layer.weight))
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(n))
        if isinstance(layer, nn.Linear):
            layer.out_features = n
        else:
            layer.out_channels = n
    if hasattr(model, "num_classes"):
        setattr(model, "num_classes", n)  # noqa: B010  # nn.Module declares tensors and modules only


def auxiliary_names(model: nn.Module) -> list[str]:
    """Last layers of the heads that run in training only."""
    found = []
    for child, module in model.named_children():
        layers = [name for name, m in module.named_modules() if can_classify(m)]
        if child in AUXILIARY and layers:
            found.append(".".join((child, layers[-1])).rstrip("."))
    return found


@dataclass(frozen=True)
class Stage:
    """A stretch of the network, for a learning rate of its own."""

    name: str  # of its first module
    parameters: tuple[nn.Parameter, ...]


def stages(model: nn.Module) -> list[Stage]:
    """The network's parameters in order, from the image to the logits, each once; the classifier is the last stage.

    The parts are the model's children; containers are opened, the one with most parameters first, until there are at
    least four before the classifier: ResNet gives its stem and four stages, a ViT its blocks. A part that only
    normalizes belongs to the one before it, a parameter of no part (a class token, a position) to the first.
    """
    head = classifier_name(model)
    aside = tuple(f"{name}." for name in AUXILIARY)
    parts = [""]
    while (opened := _next_to_open(model, parts, head)) is not None:
        at = parts.index(opened)
        prefix = f"{opened}." if opened else ""
        parts[at : at + 1] = [prefix + name for name, _ in model.get_submodule(opened).named_children()]
    body = [part for part in parts if part != head and _parameters(model, part)]
    groups: list[tuple[str, list[nn.Parameter]]] = []
    for part in body:
        parameters = _parameters(model, part)
        if groups and (_only_normalizes(model.get_submodule(part)) or f"{part}.".startswith(aside)):
            groups[-1][1].extend(parameters)
        else:
            groups.append((part, parameters))
    last = list(model.get_submodule(head).parameters())
    held = {p for _, parameters in groups for p in parameters} | set(last)
    loose = [p for p in model.parameters() if p not in held]
    if loose and not groups:
        groups.append((type(model).__name__, []))
    if loose:
        groups[0][1][:0] = loose
    found, seen = [Stage(head, tuple(last))], set(last)
    for name, parameters in reversed(groups):  # a shared parameter belongs to the last stage that has it
        found.append(Stage(name, tuple(dict.fromkeys(p for p in parameters if p not in seen))))
        seen.update(parameters)
    return found[::-1]


def _next_to_open(model: nn.Module, parts: list[str], head: str) -> str | None:
    """The part to split next: one that hides the classifier, then the largest while there are too few.

    Neither a norm counts nor what was split off the classifier's own container; and where one part holds almost
    everything, it takes one more beside it to be enough.
    """
    for part in parts:
        if part != head and (not part or head.startswith(f"{part}.")):
            return part
    around = head.rpartition(".")[0].partition(".")[0]
    body = [part for part in parts if part != head and _parameters(model, part)]
    counted = [p for p in body if not _only_normalizes(model.get_submodule(p)) and p.partition(".")[0] != around]
    sizes = {part: sum(p.numel() for p in _parameters(model, part)) for part in body}
    containers = [part for part in body if any(_parameters(m, "") for m in model.get_submodule(part).children())]
    largest = max(containers, key=lambda part: sizes[part], default=None)
    if largest is None or len(counted) > COARSEST:
        return None
    if len(counted) == COARSEST and sizes[largest] < ALMOST_EVERYTHING * sum(sizes.values()):
        return None
    return largest


def _parameters(model: nn.Module, part: str) -> list[nn.Parameter]:
    return list(model.get_submodule(part).parameters())


def _only_normalizes(module: nn.Module) -> bool:
    return all(isinstance(m, NORMS) or next(m.parameters(recurse=False), None) is None for m in module.modules())
