"""The trace: one pass of a network on shapes alone, in which every operator says what it does to the channels' labels.

Operators that only move numbers (views, permutations, concatenations, slices) are applied to the labels themselves, and
so are exact whatever the forward does with them. Products (convolutions, linear layers, attention) unite what enters
with the columns of a weight, and are noted down for counting MACs. What no rule is written for stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.prune.coupling import Coupling, line_of_forward, name_in_model
from compress.prune.labels import Array, Marks
from compress.prune.operators import COPIES, MOVING, RESHAPES, SCALINGS, rule_of
from compress.prune.positions import Step
from compress.prune.sizes import RECURRENT, Read, SizeReader, marked_sizes
from zoo.shapes import run_on_shapes

Shape = tuple[int, ...]
Named = dict[str, dict[int, Array]]  # tensor name -> dimension -> labels
Spot = tuple[type, str, str]  # class of the module that runs, line of the forward, operator
Operators = dict[Spot, list[tuple[str, Marks]]]  # modules, and what entered the operators there


@dataclass(frozen=True)
class Moved:
    """A tensor with labels that was reshaped, sliced or split, or came of it: where attributes are read."""

    module: str
    shape: Shape
    marks: Marks


@dataclass(frozen=True)
class LabelledProduct:
    """MACs of one operator: `constant` times the sizes of dimensions that may shrink."""

    constant: int
    factors: tuple[tuple[int, Marks], ...]  # (size, marks of one dimension each)


@dataclass(frozen=True)
class Scaled:
    """A multiplication by a plain number, which the forward may have derived from a width."""

    number: float
    marks: Marks
    line: str


@dataclass
class Record:
    """What a pass left behind."""

    named: Named = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    joint: list[Array] = field(default_factory=list)  # labels that one reshaping laid out over several dimensions
    parts: list[tuple[Array, ...]] = field(default_factory=list)  # labels of parts that have to stay equally wide
    pieces: list[tuple[Array, Array]] = field(
        default_factory=list
    )  # labels, and those of a part that was taken of them
    steps: list[Step] = field(default_factory=list)  # of a pass whose labels are known
    products: list[LabelledProduct] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    norms: list[tuple[str, Shape, Marks]] = field(default_factory=list)  # module, normalized shape, marks
    reads: list[Read] = field(default_factory=list)
    operators: Operators = field(default_factory=dict)
    lists: list[tuple[str, tuple[tuple[int, Marks, int], ...]]] = field(default_factory=list)  # size, marks, dimension
    groups: dict[str, tuple[int, Marks]] = field(default_factory=dict)  # module with groups -> how many, a label each


class DoesNotRun(Exception):
    """The forward of a cut network failed; `labels` are those that entered the operator."""

    def __init__(self, labels: Array, module: str, spot: Spot, reason: str) -> None:
        super().__init__(f"{reason}{spot[1]}")
        self.labels, self.module, self.spot = labels, module, spot
        self.record = Record()  # up to there


def trace(
    model: nn.Module, example: Tensor, coupling: Coupling, known: Mapping[str, Mapping[int, Array]] | None = None
) -> Record:
    """Run `model` on `example`; both may be without contents ("meta").

    Args:
        coupling: where labels are united.
        known: labels of the tensors' dimensions, by name, in a network that was cut; new ones without.
    """
    mode = Trace(model, coupling, known)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(mode.following())
            if known is None:
                stack.enter_context(marked_sizes(mode.modules))
                stack.enter_context(SizeReader(mode))
            stack.enter_context(mode)
            output = model(example)
    except DoesNotRun as error:
        error.record = mode.record
        raise
    except Exception as error:  # the forward's own checks
        reason = str(error).strip().splitlines() or [type(error).__name__]
        spot = mode.class_of(mode.module), line_of(error), ""
        failure = DoesNotRun(mode.labels_of(mode.last), mode.module, spot, reason[0])
        failure.record = mode.record
        raise failure from error
    for tensor in tree_leaves(output):
        if isinstance(tensor, Tensor):
            for array in mode.of(tensor):
                mode.coupling.labels.fix(array, "the model gives it out")
    return mode.record


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator below autograd."""

    def __init__(
        self, model: nn.Module, coupling: Coupling, known: Mapping[str, Mapping[int, Array]] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coupling, self.known, self.record = coupling, known or {}, Record()
        self.moved: list[Marks] = []  # labels of all that the last operator gave that only moves numbers
        self.running: list[str] = [""]
        self.last: Any = None  # what the last operator gave out
        self.first = known is None  # of the passes, the one that finds the labels
        self.modules = list(model.named_modules())
        self.by_name = dict(self.modules)
        self.names = {  # the first of each tensor
            id(tensor): f"{name}.{leaf}" if name else leaf
            for held in ("_buffers", "_parameters") for name, module in reversed(self.modules)
            for leaf, tensor in reversed(getattr(module, held).items())
            if tensor is not None and tensor.is_floating_point()
        }  # fmt: skip
        self.recurrent = tuple(f"{n}." if n else "" for n, m in self.modules if isinstance(m, RECURRENT))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep the names of the modules that are running: a forward of their own around each, dearer hooks aside."""
        own = [(module, vars(module).get("forward")) for _, module in self.modules]
        for name, module in self.modules:
            vars(module)["forward"] = self._named_while(name, module.forward)
        try:
            yield
        finally:
            for module, forward in own:
                del vars(module)["forward"]
                if forward is not None:
                    vars(module)["forward"] = forward

    def _named_while(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        running = self.running

        def followed(*args: Any, **kwargs: Any) -> Any:
            running.append(name)
            output = forward(*args, **kwargs)
            running.pop()  # not where it fails: that is where it failed
            return output

        return followed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            out = run_on_shapes(func, args, kwargs)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DoesNotRun(self.labels_of((args, kwargs)), self.module, self.spot(func), reason) from error
        if isinstance(out, Tensor | tuple | list):
            self.last = out
            entered = None if self.first else self._entered(args, kwargs, moves=func.overloadpacket in MOVING)
            rule_of(func)(self, func, out, args, kwargs)
            if entered is not None:
                self._note_step(func, out, args, kwargs, *entered)
            if self.first and (entering := self._marks_of((args, kwargs))):
                self.record.operators.setdefault(self.spot(func), []).append((self.module, entering))
        return out

    def _entered(self, args: Any, kwargs: Any, *, moves: bool) -> tuple[tuple[int, ...], tuple[Shape, Marks] | None]:
        """The steps that gave an operator's arguments, and the first argument; before the operator's rule."""
        held = [getattr(t, "_step", None) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        before = tuple(sorted({h[1] for h in held if h is not None and h[0] is self.record}))
        first = args[0] if args and isinstance(args[0], Tensor) else None
        return before, None if first is None else (tuple(first.shape), self.of(first) if moves else self._held(first))

    def _note_step(
        self, func: Any, out: Any, args: Any, kwargs: Any, before: tuple[int, ...], first: tuple[Shape, Marks] | None
    ) -> None:
        op = func.overloadpacket
        outs = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        if op in COPIES:
            if before:
                outs[0]._step = self.record, before[0]  # type: ignore[attr-defined]
            return
        moves = op in MOVING and bool(first and first[1])
        given = tuple((tuple(t.shape), self._held(t)) for t in outs)
        if not before and not any(marks for _, marks in given):
            return
        if moves:  # with the labels of single channels, which a tensor does not carry on
            given = tuple((shape, self.moved[i]) for i, (shape, _) in enumerate(given))
        compared = moves or (torch.Tag.pointwise in func.tags and op not in SCALINGS)
        step = Step(
            self.module, MOVING.get(op, str(op)), line_of_forward(), before, given,
            _plain((args[1:], kwargs)) if compared else (),
            first if moves else None, _again(func, args, kwargs) if moves else None,
        )  # fmt: skip
        for t in outs:
            t._step = self.record, len(self.record.steps)  # type: ignore[attr-defined]
        self.record.steps.append(step)

    def _held(self, tensor: Tensor) -> Marks:
        held = getattr(tensor, "_marks", None)
        return held[1] if held is not None and held[0] is self.record else ()

    def spot(self, func: Any) -> Spot:
        op = func.overloadpacket
        return self.class_of(self.module), line_of_forward(), MOVING.get(op, str(op))

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
        return np.concatenate([*(m.ravel() for m in self._marks_of(tensors)), np.zeros(0, np.int64)])

    def _marks_of(self, tensors: Any) -> Marks:
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


def _own_shape(tensor: Tensor) -> Shape:
    """The shape, with 1 for dimensions along which one number was expanded: they have any size that is asked for."""
    return tuple(1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _plain(arguments: Any) -> tuple[object, ...]:
    return tuple(a for a in tree_leaves(arguments) if isinstance(a, bool | int | float))


def _again(func: Any, args: Any, kwargs: Any) -> Callable[[Tensor], Any]:
    if func.overloadpacket in RESHAPES:
        return lambda t: t.reshape(args[1])
    return lambda t: func(t, *args[1:], **kwargs)


def line_of(error: BaseException) -> str:
    """ " (file:line)" of the innermost line outside torch that an error came through."""
    found, step = "", error.__traceback__
    while step is not None:
        if name := name_in_model(step.tb_frame.f_code.co_filename):
            found = f" ({name}:{step.tb_lineno})"
        step = step.tb_next
    return found
