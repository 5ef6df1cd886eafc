"""Rules for normalizations: scale and shift have one number a channel; some take moments over the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from compress.prune.labels import Marks, aligned, along, only, squeezed, varying
from compress.prune.products import GROUPS

if TYPE_CHECKING:
    from compress.prune.trace import Trace


def batch_norm(trace: Trace, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, first = args[0], out[0] if isinstance(out, tuple | list) else out
    marks = trace.of(x)
    channels, kept = along(marks, 1), [m for m in marks if m.shape[1] == 1]
    if any(a is True for a in args):  # as in training; a weight is standardized so
        trace.coupling.normalize(tuple(kept), f"a norm takes its moments over it ({trace.module})")
    own: Marks = ()
    for t in args[1:5]:
        if isinstance(t, Tensor):
            reason = "a BatchNorm of numbers that are no layer's output"
            trace.coupling.meet(channels, trace.of(t, given=only(channels)), (x.shape[1],), tuple(t.shape), reason)
            own = own or trace.of(t)
    result = [m.reshape([-1 if d == 1 else 1 for d in range(x.dim())]) for m in own or channels]
    trace.give(first, [*result, *kept])


def layer_norm(trace: Trace, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, shape, weight, bias = args[0], tuple(args[1]), args[2], args[3]
    marks = trace.of(x)
    seen = tuple(m for m in marks if any(d >= x.dim() - len(shape) for d in varying(m)))
    trace.coupling.normalize(seen, f"a LayerNorm normalizes over it ({trace.module})")
    result = marks
    for t in (weight, bias):
        if isinstance(t, Tensor):
            trace.meet(x, t)
    if isinstance(weight, Tensor) and len(seen) == len(marks) == 1:
        result = aligned(trace.of(weight), x.dim())
    trace.record.norms.append(
        (
            trace.module,
            tuple(x.shape[x.dim() - len(shape) :]),
            tuple(
                m.reshape(m.shape[x.dim() - len(shape) :])
                for m in seen
                if all(d >= x.dim() - len(shape) for d in varying(m))
            ),
        )
    )
    trace.give(out[0], result)


def group_norm(trace: Trace, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    marks = trace.coupling.level(trace.of(x), tuple(range(2, x.dim())), "its pixels are channels of another layer")
    channels = along(marks, 1)
    blocks = tuple(squeezed(m.reshape(groups, -1)) for m in channels)
    separate = trace.coupling.separate(blocks, (0,), GROUPS) if groups > 1 else list(blocks)
    within = tuple(m for m in separate if m.shape[1] > 1)
    trace.coupling.normalize(within, f"a GroupNorm normalizes over it ({trace.module})")
    if each := [m for m in separate if m.shape[0] > 1]:
        trace.record.groups[trace.module] = (groups, tuple(m.reshape(-1) for m in each))
    own: Marks = ()
    for t in (weight, bias):
        if isinstance(t, Tensor):
            trace.coupling.meet(channels, trace.of(t), (x.shape[1],), tuple(t.shape), "a norm of computed numbers")
            own = own or trace.of(t)
    trace.give(out[0], [m.reshape([-1 if d == 1 else 1 for d in range(x.dim())]) for m in own or channels])
