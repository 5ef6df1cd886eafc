"""The registry: one dict from a model's name to the function that builds it.

A family registers its builders with `@register_model`; adding a family is one file and one name in FAMILIES.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

FAMILIES = ("lenet", "resnet", "efficientnet", "vit")

Builder = TypeVar("Builder", bound="Callable[..., nn.Module]")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the registry knows of a model without building it."""

    name: str
    family: str  # the module in zoo/ that implements it
    build: Callable[..., nn.Module]
    input_size: tuple[int, int, int]  # (channels, height, width) of the paper's images

    @property
    def paper(self) -> str:
        """First line of the family's docstring: authors, year, address."""
        return (importlib.import_module(f"zoo.{self.family}").__doc__ or "").strip().splitlines()[0]


_ENTRIES: dict[str, Entry] = {}


def register_model(*, input_size: tuple[int, int, int] = (3, 224, 224)) -> Callable[[Builder], Builder]:
    """Register the decorated builder under its own name.

    Raises:
        ValueError: the name is taken.
    """

    def register(build: Builder) -> Builder:
        name = build.__name__
        if name in _ENTRIES:
            raise ValueError(f"model {name!r} is registered twice: by {_ENTRIES[name].family} and {build.__module__}")
        family = build.__module__.rpartition(".")[2]
        _ENTRIES[name] = Entry(name=name, family=family, build=build, input_size=input_size)
        return build

    return register


def _entries() -> dict[str, Entry]:
    for family in FAMILIES:
        importlib.import_module(f"zoo.{family}")
    return _ENTRIES


def list_models(pattern: str = "*") -> list[str]:
    """The registered names that match a shell pattern ("res*"), sorted."""
    return sorted(name for name in _entries() if fnmatch.fnmatch(name, pattern))


def model_entry(name: str) -> Entry:
    """The registry's entry of a model.

    Raises:
        UsageError: no model has that name; the message offers the near ones.
    """
    entries = _entries()
    if name not in entries:
        hint = did_you_mean(name, entries, "see `slimzoo models`; a timm model is named 'timm:NAME'")
        raise UsageError(f"unknown model {name!r}: {hint}")
    return entries[name]


def create_model(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """Build a model by name: one of `list_models()`, or "timm:NAME" for an upstream module.

    Args:
        name: "resnet18", "timm:densenet121".
        pretrained: load the recorded weights. Where `num_classes` differs from theirs, the classifier starts afresh.
        **options: the builder's own arguments, such as `num_classes` and `in_channels`.

    Raises:
        UsageError: an unknown name, an option that the builder does not take, or no weights on record.
    """
    from zoo import upstream, weights

    if ":" in name:
        return upstream.create_model(name, pretrained=pretrained, **options)
    entry = model_entry(name)
    try:
        model = entry.build(**options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UsageError(f"model {name!r}: {error}") from error
    if pretrained:
        weights.load_pretrained_(model, name)
    return model
