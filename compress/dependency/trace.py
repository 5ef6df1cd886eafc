"""The trace: one pass of a network on shapes alone, in which every operator says what it does to the channels' labels.

Operators that only move numbers (views, permutations, concatenations, slices) are applied to the labels themselves, and
so are exact whatever the forward does with them. Products (convolutions, linear layers, attention) unite what enters
with the columns of a weight, and are noted down for counting MACs. What no rule is written for stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from operator import methodcaller
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.dependency.coupling import Coupling, line_of_forward, name_in_model
from compress.dependency.joining import SCALINGS
from compress.dependency.labelling import Call, Labelling
from compress.dependency.labels import Marks
from compress.dependency.moving import RESHAPES
from compress.dependency.operators import COPIES, MOVING, rule_of
from compress.dependency.positions import Moving, Step
from compress.dependency.record import DoesNotRun, Named, Record, Shape
from compress.dependency.size_reader import SizeReader
from compress.dependency.sizes import marked_sizes
from zoo.shapes import run_on_shapes


def trace(model: nn.Module, example: Tensor, coupling: Coupling, known: Named | None = None) -> Record:
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
    except DoesNotRun:
        raise
    except Exception as error:  # the forward's own checks
        raise mode.stopped(error, mode.last, line_of(error)) from error
    for tensor in tree_leaves(output):
        if isinstance(tensor, Tensor):
            for array in labelling.of(tensor):
                coupling.labels.fix(array, "the model gives it out")
    return labelling.record


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Applies the rule of every operator that runs below autograd, and notes what it took and gave."""

    def __init__(self, labelling: Labelling, *, first: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.labelling = labelling
        self.first = first  # whether this is the pass that finds the labels
        self.last: Any = None  # what the last operator gave out

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep the names of the modules that are running, by wrapping each forward: hooks would take more time."""
        own = [(module, vars(module).get("forward")) for _, module in self.labelling.modules]
        for name, module in self.labelling.modules:
            vars(module)["forward"] = _named_while(self.labelling.running, name, module.forward)
        try:
            yield
        finally:
            for module, forward in own:
                del vars(module)["forward"]
                if forward is not None:
                    vars(module)["forward"] = forward

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            out = run_on_shapes(func, args, kwargs)
        except Exception as error:
            raise self.stopped(error, (args, kwargs), line_of_forward(), _name(func)) from error
        if isinstance(out, Tensor | tuple | list):
            self.last, call = out, Call(func, out, args, kwargs)
            entered = None if self.first else self._entered(call)
            rule_of(func)(self.labelling, call)
            if entered is not None:
                self._note_step(call, *entered)
            elif entering := self.labelling.marks_of((args, kwargs)):
                spot = type(self.labelling.by_name[self.labelling.module]), line_of_forward(), _name(func)
                self.labelling.record.operators.setdefault(spot, []).append((self.labelling.module, entering))
        return out

    def _entered(self, call: Call) -> tuple[tuple[int, ...], tuple[Shape, Marks] | None]:
        """The steps that gave an operator's arguments, and its first argument, as they are before its rule."""
        record, tensors = self.labelling.record, tree_leaves((call.args, call.kwargs))
        held = [getattr(t, "_step", None) for t in tensors if isinstance(t, Tensor)]
        before = tuple(sorted({h[1] for h in held if h is not None and h[0] is record}))
        first = call.args[0] if call.args else None
        if not isinstance(first, Tensor):
            return before, None
        marks = self.labelling.of(first) if call.operator in MOVING else self.labelling.held(first)
        return before, (tuple(first.shape), marks)

    def _note_step(self, call: Call, before: tuple[int, ...], first: tuple[Shape, Marks] | None) -> None:
        op, outs, record = call.operator, call.outs, self.labelling.record
        if op in COPIES:
            if before:
                outs[0]._step = record, before[0]  # type: ignore[attr-defined]
            return
        moves = op in MOVING and bool(first and first[1])
        given = tuple((tuple(t.shape), self.labelling.held(t)) for t in outs)
        if not before and not any(marks for _, marks in given):
            return
        if moves:  # with the labels of single channels, which a tensor does not carry on
            given = tuple((shape, self.labelling.moved[i]) for i, (shape, _) in enumerate(given))
        compared = moves or (torch.Tag.pointwise in call.func.tags and op not in SCALINGS)
        others = tree_leaves((call.args[1:], call.kwargs)) if compared else ()
        numbers = tuple(a for a in others if isinstance(a, bool | int | float))
        again: Moving = methodcaller("reshape", call.args[1]) if op in RESHAPES else call.again
        moved = (first, again) if moves else ()
        for t in outs:
            t._step = record, len(record.steps)  # type: ignore[attr-defined]
        name, line = _name(call.func), line_of_forward()
        record.steps.append(Step(self.labelling.module, name, line, before, given, numbers, *moved))

    def stopped(self, error: Exception, tensors: Any, line: str, operator: str = "") -> DoesNotRun:
        """What stopped the pass, where these tensors entered an operator or were the last to come out of one."""
        reason = str(error).strip().splitlines() or [type(error).__name__]
        labelling = self.labelling
        spot = type(labelling.by_name[labelling.module]), line, operator
        return DoesNotRun(labelling.marks_of(tensors), labelling.module, spot, reason[0], labelling.record)


def _named_while(running: list[str], name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def followed(*args: Any, **kwargs: Any) -> Any:
        running.append(name)
        output = forward(*args, **kwargs)
        running.pop()  # not where it fails: that is where it failed
        return output

    return followed


def _name(func: Any) -> str:
    return MOVING.get(func.overloadpacket, str(func.overloadpacket))


def line_of(error: BaseException) -> str:
    """The innermost line outside torch that an error came through, as " (file:line)"."""
    found, step = "", error.__traceback__
    while step is not None:
        if name := name_in_model(step.tb_frame.f_code.co_filename):
            found = f" ({name}:{step.tb_lineno})"
        step = step.tb_next
    return found
