"""The trace: one pass of a network on shapes alone, in which every operator says what it does to the channels' labels.

Operators that only move numbers (views, permutations, concatenations, slices) are applied to the labels themselves, and
so are exact whatever the forward does with them. Products (convolutions, linear layers, attention) unite what enters
with the columns of a weight, and are noted down for counting MACs. What no rule is written for stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.dependency.coupling import Coupling, line_of_forward, name_in_model
from compress.dependency.labelling import Labelling
from compress.dependency.labels import Array, Marks
from compress.dependency.operators import COPIES, MOVING, RESHAPES, SCALINGS, rule_of
from compress.dependency.positions import Step
from compress.dependency.record import DoesNotRun, Record, Shape, Spot
from compress.dependency.size_reader import SizeReader
from compress.dependency.sizes import marked_sizes
from zoo.shapes import run_on_shapes


def trace(
    model: nn.Module, example: Tensor, coupling: Coupling, known: Mapping[str, Mapping[int, Array]] | None = None
) -> Record:
    """Run `model` on `example`; both may be without contents ("meta").

    Args:
        coupling: where labels are united.
        known: labels of the tensors' dimensions, by name, in a network that was cut; new ones without.
    """
    labelling = Labelling(model, coupling, known)
    mode = Trace(labelling, first=known is None)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(mode.following())
            if known is None:
                stack.enter_context(marked_sizes(labelling.modules))
                stack.enter_context(SizeReader(labelling))
            stack.enter_context(mode)
            output = model(example)
    except DoesNotRun as error:
        error.record = labelling.record
        raise
    except Exception as error:  # the forward's own checks
        reason = str(error).strip().splitlines() or [type(error).__name__]
        spot = labelling.class_of(labelling.module), line_of(error), ""
        failure = DoesNotRun(labelling.labels_of(mode.last), labelling.module, spot, reason[0])
        failure.record = labelling.record
        raise failure from error
    for tensor in tree_leaves(output):
        if isinstance(tensor, Tensor):
            for array in labelling.of(tensor):
                coupling.labels.fix(array, "the model gives it out")
    return labelling.record


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator below autograd."""

    def __init__(self, labelling: Labelling, *, first: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labelling = labelling
        self.first = first  # of the passes, the one that finds the labels
        self.last: Any = None  # what the last operator gave out

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep the names of the modules that are running: a forward of their own around each, dearer hooks aside."""
        own = [(module, vars(module).get("forward")) for _, module in self.labelling.modules]
        for name, module in self.labelling.modules:
            vars(module)["forward"] = self._named_while(name, module.forward)
        try:
            yield
        finally:
            for module, forward in own:
                del vars(module)["forward"]
                if forward is not None:
                    vars(module)["forward"] = forward

    def _named_while(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        running = self.labelling.running

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
            raise DoesNotRun(
                self.labelling.labels_of((args, kwargs)), self.labelling.module, self.spot(func), reason
            ) from error
        if isinstance(out, Tensor | tuple | list):
            self.last = out
            entered = None if self.first else self._entered(args, kwargs, moves=func.overloadpacket in MOVING)
            rule_of(func)(self.labelling, func, out, args, kwargs)
            if entered is not None:
                self._note_step(func, out, args, kwargs, *entered)
            if self.first and (entering := self.labelling.marks_of((args, kwargs))):
                self.labelling.record.operators.setdefault(self.spot(func), []).append(
                    (self.labelling.module, entering)
                )
        return out

    def _entered(self, args: Any, kwargs: Any, *, moves: bool) -> tuple[tuple[int, ...], tuple[Shape, Marks] | None]:
        """The steps that gave an operator's arguments, and the first argument; before the operator's rule."""
        held = [getattr(t, "_step", None) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        before = tuple(sorted({h[1] for h in held if h is not None and h[0] is self.labelling.record}))
        first = args[0] if args and isinstance(args[0], Tensor) else None
        return before, None if first is None else (
            tuple(first.shape),
            self.labelling.of(first) if moves else self.labelling.held(first),
        )

    def _note_step(
        self, func: Any, out: Any, args: Any, kwargs: Any, before: tuple[int, ...], first: tuple[Shape, Marks] | None
    ) -> None:
        op = func.overloadpacket
        outs = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        if op in COPIES:
            if before:
                outs[0]._step = self.labelling.record, before[0]  # type: ignore[attr-defined]
            return
        moves = op in MOVING and bool(first and first[1])
        given = tuple((tuple(t.shape), self.labelling.held(t)) for t in outs)
        if not before and not any(marks for _, marks in given):
            return
        if moves:  # with the labels of single channels, which a tensor does not carry on
            given = tuple((shape, self.labelling.moved[i]) for i, (shape, _) in enumerate(given))
        compared = moves or (torch.Tag.pointwise in func.tags and op not in SCALINGS)
        step = Step(
            self.labelling.module, MOVING.get(op, str(op)), line_of_forward(), before, given,
            _plain((args[1:], kwargs)) if compared else (),
            first if moves else None, _again(func, args, kwargs) if moves else None,
        )  # fmt: skip
        for t in outs:
            t._step = self.labelling.record, len(self.labelling.record.steps)  # type: ignore[attr-defined]
        self.labelling.record.steps.append(step)

    def spot(self, func: Any) -> Spot:
        op = func.overloadpacket
        return self.labelling.class_of(self.labelling.module), line_of_forward(), MOVING.get(op, str(op))


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
