"""The sums in which layers end, watched in a forward pass: what a layer's outputs are added to, and how they get there.

Calls of torch's functions are numbered. A cut network makes the same calls in the same order as the uncut one, but for
those of blocks that it leaves out, whose numbers are passed over; so a tensor of the one is found in the other by the
number of the call that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.blocks import ADDITIONS

CALL, LAYER = "_slimzoo_call", "_slimzoo_layer"  # attributes of tensors: the number of its call; (layer, scale)
LEAST = 1e-3  # of the largest scale: below it a layer's output hardly reaches the sum


class Calls(TorchFunctionMode):
    """Numbers the calls made in its context and keeps what some of them return.

    Args:
        keep: numbers of calls.

    Attributes:
        kept: number -> what that call returned.
    """

    def __init__(self, keep: Iterable[int] = ()) -> None:
        super().__init__()
        self.kept: dict[int, Tensor] = {}
        self._keep, self._done, self._silent = frozenset(keep), 0, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._silent:
            return func(*args, **kwargs)
        before = self.seen(func, args, kwargs)
        result = func(*args, **kwargs)
        if type(result) is Tensor:
            setattr(result, CALL, self._done)
            setattr(result, LAYER, before)
            if self._done in self._keep:
                self.kept[self._done] = result
        self._done += 1
        return result

    @property
    def done(self) -> int:
        """How many calls have been made."""
        return self._done

    def pass_over(self, calls: int, number: int | None, output: Tensor) -> None:
        """Count so many calls that are not made, and take `output` for what the one of that number would have made."""
        self._done += calls
        if number is not None and number in self._keep:
            self.kept[number] = output

    def seen(self, func: Any, args: Any, kwargs: Any) -> tuple[str, Tensor] | None:
        """Look at a call before it is made; returns the layer whose outputs, times a scale, it returns."""
        return None

    @contextmanager
    def silent(self) -> Iterator[None]:
        """In which calls are not counted: those of hooks."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False


class Sums(Calls):
    """Finds the layers whose outputs are added, as they are or normalized, to what another call made.

    Args:
        found: told of each: its name, the scale of its outputs in the sum, (C,) or one for all, the number of the call
            that made the other summand, and that summand.
    """

    def __init__(self, found: Callable[[str, Tensor, int, Tensor], None]) -> None:
        super().__init__()
        self._found = found

    @staticmethod
    def mark(output: Tensor, name: str) -> None:
        """Say whose outputs these are."""
        setattr(output, LAYER, (name, torch.ones(1)))

    @staticmethod
    def is_marked(tensor: Tensor) -> bool:
        """Whether these are outputs of a layer, as they are or normalized."""
        return getattr(tensor, LAYER, None) is not None

    def seen(self, func: Any, args: Any, kwargs: Any) -> tuple[str, Tensor] | None:
        if func is torch.nn.functional.batch_norm:
            return self._normalized(*args, **kwargs)
        operands = args[:2]
        if getattr(func, "__name__", "") in ADDITIONS and not kwargs and all(type(x) is Tensor for x in operands):
            with self.silent():
                for own, other in (operands, operands[::-1]):
                    reached, call = getattr(own, LAYER, None), getattr(other, CALL, None)
                    if reached is not None and call is not None and own.shape == other.shape:
                        name, scale = reached
                        self._found(name, scale, call, other)
        return None

    def _normalized(
        self,
        inputs: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> tuple[str, Tensor] | None:
        reached = getattr(inputs, LAYER, None)
        if reached is None or var is None or training:
            return None
        name, scale = reached
        with self.silent():
            scale = scale / (var + eps).sqrt()
            return name, scale if weight is None else scale * weight
