"""Labelling: which labels the tensors of a pass have, and what its operators note of them. Rules are given it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compress.dependency.coupling import Coupling, line_of_forward
from compress.dependency.labels import Array, Marks
from compress.dependency.record import LabelledProduct, Moved, Record, Scaled, Shape
from compress.dependency.sizes import RECURRENT


class Labelling:
    """Labels of a pass of `model`, united by `coupling`; `known` are those of a network that was cut, by name."""

    def __init__(
        self, model: nn.Module, coupling: Coupling, known: Mapping[str, Mapping[int, Array]] | None = None
    ) -> None:
        self.coupling, self.known, self.record = coupling, known or {}, Record()
        self.moved: list[Marks] = []  # labels of all that the last operator gave that only moves numbers
        self.running: list[str] = [""]  # names of the modules that run, innermost last
        self.modules = list(model.named_modules())
        self.by_name = dict(self.modules)
        self.names = {  # the first of each tensor
            id(tensor): f"{name}.{leaf}" if name else leaf
            for held in ("_buffers", "_parameters") for name, module in reversed(self.modules)
            for leaf, tensor in reversed(getattr(module, held).items())
            if tensor is not None and tensor.is_floating_point()
        }  # fmt: skip
        self.recurrent = tuple(f"{n}." if n else "" for n, m in self.modules if isinstance(m, RECURRENT))

    def class_of(self, module: str) -> type:
        return type(self.by_name[module])

    @property
    def module(self) -> str:
        return self.running[-1]

    @property
    def described(self) -> str:
        """The module that is running: "Block `layer1.0`"."""
        kind = self.class_of(self.module).__name__
        return f"{kind} `{self.module}`" if self.module else kind

    def labels_of(self, tensors: Any) -> Array:
        """All labels of the tensors in a structure."""
        return np.concatenate([*(m.ravel() for m in self.marks_of(tensors)), np.zeros(0, np.int64)])

    def marks_of(self, tensors: Any) -> Marks:
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

    def note_moved(self, tensor: Tensor) -> None:
        if marks := self.of(tensor):
            self.record.moved.append(Moved(self.module, tuple(tensor.shape), marks))

    def note_list(self, parts: Sequence[Tensor], dim: int) -> None:
        """What is concatenated, or came of a split: a module may hold the list of their sizes."""
        self.record.lists.append((self.module, tuple((t.shape[dim], self.of(t), dim) for t in parts)))

    def note_scaled(self, number: float, marks: Marks) -> None:
        self.record.scaled.append(Scaled(number, marks, line_of_forward()))

    def note_product(self, constant: int, *factors: tuple[int, Marks]) -> None:
        self.record.products.append(LabelledProduct(constant, factors))

    def held(self, tensor: Tensor) -> Marks:
        held = getattr(tensor, "_marks", None)
        return held[1] if held is not None and held[0] is self.record else ()


def _own_shape(tensor: Tensor) -> Shape:
    """The shape, with 1 for dimensions along which one number was expanded: they have any size that is asked for."""
    return tuple(1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
