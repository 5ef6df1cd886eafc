"""create_model: one way from a name to a network, of this zoo, of timm's or of torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError
from zoo.models.registry import build

if TYPE_CHECKING:
    from torch import nn


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    activation: str | None = None,
    norm: str | None = None,
    init: str | None = None,
    taps: Mapping[str, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model by name: one of `list_models()`, "timm:NAME" or "torchvision:NAME" for an upstream module.

    Args:
        name: "resnet18", "timm:densenet121".
        pretrained: load the recorded weights. Where `num_classes` differs from theirs, the classifier starts afresh.
        activation, norm, init: what if? Every activation, every normalization, every fresh weight of another kind, by
            a name of ACTIVATIONS, NORMS (zoo/models/layers.py) or INITS (zoo/models/init.py); None leaves the paper's.
        taps: let the classifier see these depths of the network too, by name and channels; see `zoo.models.tapped`.
        **options: the builder's own arguments, such as `num_classes` and `in_channels`.

    Raises:
        UsageError: an unknown name, an option that the builder does not take, or no weights on record.
    """
    from zoo.models import init as inits
    from zoo.models import layers, tapped
    from zoo.pretrained import load as trained
    from zoo.pretrained import upstream

    if pretrained and (activation or norm or init):
        raise UsageError(f"pretrained {name!r} with another activation, norm or init: those weights fit the paper's")
    if ":" in name:
        model = upstream.create_model(name, pretrained=pretrained, **options)
    else:
        model = build(name, options)
        if pretrained:
            trained.load_pretrained_(model, name)
    if norm is not None:
        layers.replace_norms_(model, norm)
    if activation is not None:
        layers.replace_activations_(model, activation)
    if init is not None:
        inits.initialize_(model, init)
    return tapped.Tapped(model, taps) if taps else model
