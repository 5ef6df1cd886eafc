"""Groups: sets of channels, across layers, that can only go together (Fang et al. 2023, DepGraph, arXiv 2301.12900).

A convolution's output channel is also an input channel of its consumers, a channel of the BatchNorm between them, and,
through residual additions and depthwise convolutions, an output channel of other layers. An attention's channels are
heads times widths of a head: either can be cut. A `Group` says so in plain names and indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Axis = Literal["out", "in"]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]
Keeps = Sequence[Indices]  # for each group the channels that stay, ascending

CLASSES = "its outputs are the classes"  # why the classifier stays whole
OF_LAYERS = ("weight", "bias", "running_mean", "running_var")
NAMED = 3  # layers of a list that would be too long


@dataclass(frozen=True, eq=False)
class Slice:
    """The part of one tensor that belongs to a group.

    Attributes:
        module, tensor: dotted name of a module, and of its parameter or buffer: "layer1.0.conv1", "weight".
        dim: the tensor's dimension that is cut.
        channels: indices along it.
        roots: for each of them, the group's channel that it goes with. One channel may go with many indices: after a
            flattening, every pixel of it is a column.
    """

    module: str
    tensor: str
    dim: int
    channels: Indices
    roots: Indices

    @property
    def name(self) -> str:
        return f"{self.module}.{self.tensor}".lstrip(".")

    @property
    def axis(self) -> Axis:
        """The side of a layer: "in" for a weight's columns, "out" for rows and for what has one number per channel."""
        return "in" if self.dim == 1 and self.tensor.endswith("weight") else "out"


@dataclass(frozen=True, eq=False)
class Rescaling:
    """Rows whose numbers make good for a factor that the forward derives from the width: attention's 1/sqrt(width).

    After a cut to a share s of the group's width, the rows of these tensors are multiplied by s ** exponent.
    """

    module: str
    rows: Indices
    exponent: float


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that go together, named after the layer that makes them, and every slice that goes with them.

    Attributes:
        kind: "channels", "heads", "head widths" (one goes from every head), "conv groups", "group widths".
        normalized: why a cut changes the function by more than a mask would, "" where it does not.
        tied: a number shared by the groups that have to stay equally wide; None for most.
    """

    name: str
    width: int
    slices: tuple[Slice, ...]
    kind: str = "channels"
    normalized: str = ""
    tied: int | None = None
    rescaled: tuple[Rescaling, ...] = ()

    def __str__(self) -> str:
        named = [f"{s.module}[{s.axis}]" if s.tensor in OF_LAYERS else f"{s.name}[{s.dim}]" for s in self.slices]
        return f"{self.name}: {self.width} {self.kind} of {', '.join(dict.fromkeys(named))}"

    def describe(self) -> str:
        """Every tensor with its dimension and indices: "attn.qkv.weight[0] 0:64 192:256"."""
        lines = [f"{self.name}: {self.width} {self.kind}"]
        lines += [f"  {s.name}[{s.dim}] {_ranges(s.channels)}" for s in self.slices]
        return "\n".join(lines)


def _ranges(indices: Indices) -> str:
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    runs = [f"{run[0]}:{run[-1] + 1}" for run in np.split(indices, cuts) if len(run)]
    return " ".join(runs if len(runs) <= 8 else [*runs[:4], "...", *runs[-4:]])


@dataclass(frozen=True, eq=False)
class Width:
    """A size that groups may shrink, of a tensor's dimension say.

    Attributes:
        indices: along the dimension, those that may go; one that goes with a head and with a head width stands twice.
        channels: what each of them goes with, counted through all groups (`Grouping.flat`).
    """

    size: int
    indices: Indices
    channels: Indices

    def left(self, kept: Flags) -> int:
        """The size when only these of all groups' channels are kept."""
        if self._once:
            return self.size - int(np.count_nonzero(~kept[self.channels]))
        gone = np.zeros(self.size, dtype=bool)
        gone[self.indices[~kept[self.channels]]] = True
        return self.size - int(gone.sum())

    @cached_property
    def _once(self) -> bool:
        return len(self.indices) == 0 or int(np.bincount(self.indices).max()) == 1


@dataclass(frozen=True, eq=False)
class Attribute:
    """A plain attribute of a module that says how wide something is, and is read by its forward."""

    module: str
    name: str
    widths: tuple[Width, ...]
    several: bool = False  # a tuple or list of them


@dataclass(frozen=True, eq=False)
class Product:
    """MACs of one operator: `constant` times the sizes of what may shrink."""

    constant: int
    factors: tuple[Width, ...]


@dataclass(frozen=True)
class Grouping:
    """All groups that may be cut, the layers whose outputs stay whole, with the reason, and what follows from a cut.

    Attributes:
        with_norms: finds them once more, widths that a norm normalizes over among them; None where they are already.
    """

    groups: tuple[Group, ...]
    whole: dict[str, str]
    products: tuple[Product, ...] = field(repr=False)
    attributes: tuple[Attribute, ...] = field(repr=False)
    with_norms: Callable[[], Grouping] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def macs(self) -> int:
        """Count the multiply-accumulates of the uncut network for one image."""
        return sum(p.constant * math.prod(width.size for width in p.factors) for p in self.products)

    def without(self, stay: Mapping[str, str]) -> Grouping:
        """The same with these groups left whole; `stay` is their names, and why."""
        cut = [group.name not in stay for group in self.groups]
        kept = np.repeat(np.array(cut, dtype=bool), [group.width for group in self.groups])
        place = np.cumsum(kept) - 1  # of a channel among those of all groups
        held: dict[int, Width] = {}  # one that several share stays one

        def narrowed(width: Width) -> Width:
            if id(width) not in held:
                stays = kept[width.channels]
                held[id(width)] = Width(width.size, width.indices[stays], place[width.channels[stays]])
            return held[id(width)]

        return Grouping(
            tuple(group for group, c in zip(self.groups, cut, strict=True) if c),
            {**self.whole, **stay},
            tuple(Product(p.constant, tuple(map(narrowed, p.factors))) for p in self.products),
            tuple(Attribute(a.module, a.name, tuple(map(narrowed, a.widths)), a.several) for a in self.attributes),
            self.with_norms,
        )

    def flat(self, keeps: Keeps) -> Flags:
        """For the channels of all groups, one group after the other, whether each is kept."""
        return np.concatenate([*flags(self.groups, keeps), np.zeros(0, dtype=bool)])


def flags(groups: Sequence[Group], keeps: Keeps) -> list[Flags]:
    """For each group, whether each channel is kept."""
    kept = [np.zeros(group.width, dtype=bool) for group in groups]
    for flag, keep in zip(kept, keeps, strict=True):
        flag[keep] = True
    return kept


def describe_whole(whole: Mapping[str, str]) -> list[str]:
    """A line for each reason why layers are left whole, the first of them named; but for the classifier."""
    layers: dict[str, list[str]] = {}
    for layer, reason in whole.items():
        layers.setdefault(reason, []).append(layer)
    return [
        f"left whole: {', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if names[NAMED:] else ''}: {reason}"
        for reason, names in layers.items()
        if reason != CLASSES
    ]
