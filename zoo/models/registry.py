"""The registry: one dict from a model's name to the function that builds it.

A family registers each variant with `register_model`; adding a family is one file and one name in FAMILIES.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

FAMILIES = (
    "mlp",
    "lenet",
    "alexnet",
    "vgg",
    "squeezenet",
    "googlenet",
    "resnet",
    "densenet",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3",
    "efficientnet",
    "convnext",
    "vit",
    "segnet",
    "sequence",
)

Kind = Literal["classifier", "dense", "sequence"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the registry knows of a model without building it.

    Attributes:
        name: what `create_model` takes.
        module: the Python module that implements the family, "zoo.models.resnet".
        build: takes the keyword arguments of the family's class, every one with a default.
        kind: what it computes: "classifier", (B, C, H, W) -> (B, classes); "dense", (B, C, H, W) -> (B, classes, H, W);
            "sequence", (B, L, C) or tokens (B, L) -> (B, classes).
        input_size: of one input: (channels, height, width) of the paper's images, (length, channels) of a sequence.
    """

    name: str
    module: str
    build: Callable[..., nn.Module]
    kind: Kind
    input_size: tuple[int, ...]

    @property
    def family(self) -> str:
        """The family's name: that of its file."""
        return self.module.rpartition(".")[2]

    @property
    def paper(self) -> str:
        """First line of the family's docstring: authors, year, address."""
        return (self._file.__doc__ or "").strip().splitlines()[0]

    @property
    def tiny(self) -> dict[str, Any] | None:
        """Arguments of the family's smallest instance, for tests; None where the family has it for another variant."""
        arguments: dict[str, dict[str, Any]] = self._file.TINY
        return arguments.get(self.name)

    @property
    def _file(self) -> ModuleType:
        return importlib.import_module(self.module)


_ENTRIES: dict[str, Entry] = {}
_OWN: dict[str, Entry] = {}  # modules that a user brought in memory: they can be built by name, and are not the zoo's


def register_model(
    name: str,
    build: Callable[..., nn.Module],
    *,
    kind: Kind = "classifier",
    input_size: tuple[int, ...] = (3, 224, 224),
) -> Callable[..., nn.Module]:
    """Put a model into the zoo: a class, or a `functools.partial` of one with the variant's numbers. Returns `build`.

    Raises:
        ValueError: the name is taken.
    """
    module = getattr(build, "func", build).__module__
    if name in _ENTRIES:
        raise ValueError(f"model {name!r} is registered twice: by {_ENTRIES[name].module} and {module}")
    _ENTRIES[name] = Entry(name=name, module=module, build=build, kind=kind, input_size=input_size)
    return build


def register_own(name: str, build: Callable[..., nn.Module], module: str, input_size: tuple[int, ...]) -> None:
    """Make a user's module known under a name; one that comes later under the same name replaces it."""
    _OWN[name] = Entry(name=name, module=module, build=build, kind="classifier", input_size=input_size)


def is_registered(name: str) -> bool:
    """Whether it is one of the zoo's, or of those that `register_model` added to it."""
    return name in _entries()


def is_users(name: str) -> bool:
    """Whether this process alone knows it: a user's, registered or brought in memory."""
    entry = _entries().get(name)
    return name in _OWN if entry is None else not entry.module.startswith(f"{__package__}.")


def _entries() -> dict[str, Entry]:
    for family in FAMILIES:
        importlib.import_module(f"zoo.models.{family}")
    return _ENTRIES


def list_models(pattern: str = "*", *, kind: Kind | None = None) -> list[str]:
    """The registered names that match a shell pattern ("res*"), of one kind or of all, in natural order."""
    found = (e for e in _entries().values() if kind in (None, e.kind) and fnmatch.fnmatch(e.name, pattern))
    return sorted((e.name for e in found), key=_natural)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """resnet20 before resnet101, vgg11 before vgg11_bn."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part]


def model_entry(name: str) -> Entry:
    """The registry's entry of a model.

    Raises:
        UsageError: no model has that name; the message offers the near ones.
    """
    entries = _entries()
    if name in _OWN:
        return _OWN[name]
    if name not in entries:
        hint = did_you_mean(name, entries, "see `slimzoo models`; others' are named 'timm:NAME' and 'torchvision:NAME'")
        raise UsageError(f"unknown model {name!r}: {hint}")
    return entries[name]


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The registered model `name`, with fresh weights.

    Args:
        options: the keyword arguments of the family's class, such as `num_classes` and `in_channels`.

    Raises:
        UsageError: an unknown name, or an option that the family does not take.
    """
    entry = model_entry(name)
    try:
        return entry.build(**options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UsageError(f"model {entry.name!r}: {error}") from error
    except ValueError as error:
        raise UsageError(f"model {entry.name!r}: {error}") from error
