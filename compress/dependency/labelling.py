"""Labelling: which labels the tensors of a pass have, and what rules note of them when they are given a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.dependency.coupling import Coupling, line_of_forward
from compress.dependency.labels import Array, Marks
from compress.dependency.record import Factor, Named, Record, Shape
from compress.dependency.sizes import RECURRENT

PIXELS = "its pixels are channels of another layer"  # why channels stay whole


class Call(NamedTuple):
    """One call of an ATen operator.

    Attributes:
        func: the overload that ran, such as aten.add.Tensor.
        out: what it gave out: a tensor, or a tuple or list of tensors.
    """

    func: Any
    out: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def operator(self) -> Any:
        """The operator of which `func` is an overload, such as aten.add."""
        return self.func.overloadpacket

    @property
    def x(self) -> Any:
        """The first argument: a tensor, but for operators that join a list of them."""
        return self.args[0]

    @property
    def outs(self) -> list[Tensor]:
        """The tensors that it gave out."""
        return [t for t in (self.out if isinstance(self.out, tuple | list) else (self.out,)) if isinstance(t, Tensor)]

    @property
    def again(self) -> Callable[[Any], Any]:
        """The call as a function of its first argument, which does not hold on to that tensor or to what came out."""
        func, others, kwargs = self.func, self.args[1:], self.kwargs
        return lambda x: func(x, *others, **kwargs)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that may be given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def dim(self, position: int, rank: int, default: int = 0) -> int:
        """The argument `dim` for tensors of `rank` dimensions, counted from the first one."""
        dim: int = self.argument(position, "dim", default) % rank
        return dim


class Labelling:
    """Holds the labels of one pass of `model`; `known` are those of a network that was cut, by name of the tensor."""

    def __init__(self, model: nn.Module, coupling: Coupling, known: Named | None = None) -> None:
        self.coupling, self.known, self.record = coupling, known or {}, Record()
        self.moved: list[Marks] = []  # labels of all that the last operator gave that only moves numbers
        self.running: list[str] = [""]  # names of the modules that run, innermost last
        self.modules = list(model.named_modules())
        self.by_name = dict(self.modules)
        self.names: dict[int, str] = {}  # of a tensor that has several the first one
        for name, module in self.modules:
            for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and tensor.is_floating_point():
                    self.names.setdefault(id(tensor), f"{name}.{leaf}".lstrip("."))
        self.recurrent = tuple(f"{n}." if n else "" for n, m in self.modules if isinstance(m, RECURRENT))

    @property
    def module(self) -> str:
        return self.running[-1]

    @property
    def described(self) -> str:
        """The module that is running: "Block `layer1.0`"."""
        kind = type(self.by_name[self.module]).__name__
        return f"{kind} `{self.module}`" if self.module else kind

    def marks_of(self, tensors: Any) -> Marks:
        """The marks of all tensors in a structure."""
        return tuple(m for t in tree_leaves(tensors) if isinstance(t, Tensor) for m in self.of(t))

    def of(self, tensor: Tensor, dims: int | None = None, given: Mapping[int, Array] | None = None) -> Marks:
        """The tensor's marks; a parameter or buffer that is seen first gets some, along its first `dims` dimensions.

        Args:
            given: labels of a dimension, where what it meets is known: new ones would only be united with them.
        """
        held = getattr(tensor, "_marks", None)
        if held is not None and held[0] is self.record:  # not those of an earlier pass
            marks: Marks = held[1]
            return marks
        name = self.names.get(id(tensor))
        marks = () if name is None else self._named(name, tensor, dims, given or {})
        tensor._marks = self.record, marks  # type: ignore[attr-defined]
        return marks

    def _named(self, name: str, tensor: Tensor, dims: int | None, given: Mapping[int, Array]) -> Marks:
        known = self.known.get(name)
        mine, marks, rank = self.record.named.setdefault(name, {}), [], tensor.dim()
        for dim, size in enumerate(tensor.shape[:dims]):
            if known is not None:
                if dim not in known:
                    continue
                labels = known[dim]
            elif dim in given:
                labels = given[dim]
            elif size > 1:
                labels = self.coupling.labels.fresh(size)
            else:
                continue
            mine[dim] = labels
            ones = (1,) * (rank - dim - 1)
            marks.append(labels.reshape((1,) * dim + (-1,) + ones) if rank > 1 else labels)
            if ".parametrizations." in name:
                layer = name.partition(".parametrizations.")[0]
                self.coupling.fix(labels, f"its weight is computed by a parametrization, to be removed first ({layer})")
            if self.recurrent and name.startswith(self.recurrent) and not ("weight_ih" in name and dim == 1):
                self.coupling.fix(labels, f"no rule to cut the hidden width of a recurrent layer ({self.module})")
        return tuple(marks)

    def give(self, tensor: Tensor, marks: Marks | list[Array]) -> None:
        tensor._marks = self.record, tuple(m for m in marks if m.size > 1)  # type: ignore[attr-defined]

    def meet(self, a: Tensor, b: Tensor, reason: str = "it is coupled with numbers that are no layer's output") -> None:
        self.coupling.meet(self.of(a), self.of(b), _own_shape(a), _own_shape(b), reason)

    def leave_whole(self, call: Call) -> None:
        """The rule for operators that have none: what enters stays whole, and the reason names the operator."""
        for mark in self.marks_of((call.args, call.kwargs)):
            self.coupling.fix(mark, f"{self.described} uses {call.operator}, which has no rule")

    def note_moved(self, tensor: Tensor) -> None:
        if marks := self.of(tensor):
            self.record.moved.append((self.module, tuple(tensor.shape), marks))

    def note_list(self, parts: Sequence[Tensor], dim: int) -> None:
        """What is concatenated, or came of a split: a module may hold the list of their sizes."""
        self.record.lists.append((self.module, tuple((t.shape[dim], self.of(t), dim) for t in parts)))

    def note_scaled(self, number: float, marks: Marks) -> None:
        self.record.scaled.append((number, marks, line_of_forward()))

    def note_product(self, constant: int, *factors: Factor) -> None:
        self.record.products.append((constant, factors))

    def note_groups(self, count: int, marks: Sequence[Array]) -> None:
        """Note that the module that is running has so many groups of channels; marks have a label for each of them."""
        if marks:
            self.record.groups[self.module] = (count, tuple(m.reshape(-1) for m in marks))

    def held(self, tensor: Tensor) -> Marks:
        held = getattr(tensor, "_marks", None)
        return held[1] if held is not None and held[0] is self.record else ()


def _own_shape(tensor: Tensor) -> Shape:
    """The shape, with 1 for dimensions along which one number was expanded: they have any size that is asked for."""
    return tuple(1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
