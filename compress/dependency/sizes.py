"""Sizes: whole numbers that know from which module they are, so that it is seen where a forward uses them.

Four heads look like four windows. So while a network is traced, every whole number that a module holds is replaced by
a `Size`, which is recognized where the forward reshapes, slices or splits by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

Modules = Mapping[str, nn.Module]  # a network's, by name
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding, *NORMS, *RECURRENT)  # they say their own widths


class Size(int):
    """A whole number that knows the module and attribute it is from; a multiple of one by a plain number still does.

    Attributes:
        index: its place, where the attribute is a list.
        times: how often the attribute's value goes into it.
    """

    module: str
    attribute: str
    index: int | None
    times: int

    @classmethod
    def of(cls, value: int, module: str, attribute: str, index: int | None = None, times: int = 1) -> Size:
        size = cls(value)
        size.module, size.attribute, size.index, size.times = module, attribute, index, times
        return size

    def __mul__(self, other: Any) -> Any:
        if type(other) is int and other > 0 and hasattr(self, "module"):
            return Size.of(int(self) * other, self.module, self.attribute, self.index, self.times * other)
        return int.__mul__(self, other)

    __rmul__ = __mul__


@contextmanager
def marked_sizes(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[None]:
    """While it lasts, the modules' whole numbers, and those of their lists, are each a `Size`; but for layers' own."""
    held = []
    for name, module in modules:
        if isinstance(module, LAYERS):
            continue
        own = vars(module)
        for attribute, value in list(own.items()):
            if type(value) is int and value > 1:
                marked: Any = Size.of(value, name, attribute)
            elif type(value) in (tuple, list) and value and all(type(n) is int for n in value):
                marked = type(value)(Size.of(n, name, attribute, i) for i, n in enumerate(value))
            else:
                continue
            held.append((own, attribute, value, marked))
            own[attribute] = marked
    try:
        yield
    finally:
        for own, attribute, value, marked in held:
            if own.get(attribute) is marked:  # not where the forward has set another
                own[attribute] = value
