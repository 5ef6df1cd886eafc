"""Rules for normalizations: scale and shift have one number a channel; some take moments over the channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compress.dependency.labelling import Labelling
from compress.dependency.labels import Marks, aligned, along, only, squeezed, varying
from compress.dependency.products import GROUPS


def batch_norm(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, first = args[0], out[0] if isinstance(out, tuple | list) else out
    marks = labelling.of(x)
    channels, kept = along(marks, 1), [m for m in marks if m.shape[1] == 1]
    if any(a is True for a in args):  # as in training; a weight is standardized so
        labelling.coupling.normalize(tuple(kept), f"a norm takes its moments over it ({labelling.module})")
    own: Marks = ()
    for t in args[1:5]:
        if isinstance(t, Tensor):
            reason = "a BatchNorm of numbers that are no layer's output"
            labelling.coupling.meet(
                channels, labelling.of(t, given=only(channels)), (x.shape[1],), tuple(t.shape), reason
            )
            own = own or labelling.of(t)
    result = [m.reshape([-1 if d == 1 else 1 for d in range(x.dim())]) for m in own or channels]
    labelling.give(first, [*result, *kept])


def layer_norm(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, shape, weight, bias = args[0], tuple(args[1]), args[2], args[3]
    marks = labelling.of(x)
    seen = tuple(m for m in marks if any(d >= x.dim() - len(shape) for d in varying(m)))
    labelling.coupling.normalize(seen, f"a LayerNorm normalizes over it ({labelling.module})")
    result = marks
    for t in (weight, bias):
        if isinstance(t, Tensor):
            labelling.meet(x, t)
    if isinstance(weight, Tensor) and len(seen) == len(marks) == 1:
        result = aligned(labelling.of(weight), x.dim())
    labelling.record.norms.append(
        (
            labelling.module,
            tuple(x.shape[x.dim() - len(shape) :]),
            tuple(
                m.reshape(m.shape[x.dim() - len(shape) :])
                for m in seen
                if all(d >= x.dim() - len(shape) for d in varying(m))
            ),
        )
    )
    labelling.give(out[0], result)


def group_norm(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    marks = labelling.coupling.level(
        labelling.of(x), tuple(range(2, x.dim())), "its pixels are channels of another layer"
    )
    channels = along(marks, 1)
    blocks = tuple(squeezed(m.reshape(groups, -1)) for m in channels)
    separate = labelling.coupling.separate(blocks, (0,), GROUPS) if groups > 1 else list(blocks)
    within = tuple(m for m in separate if m.shape[1] > 1)
    labelling.coupling.normalize(within, f"a GroupNorm normalizes over it ({labelling.module})")
    if each := [m for m in separate if m.shape[0] > 1]:
        labelling.record.groups[labelling.module] = (groups, tuple(m.reshape(-1) for m in each))
    own: Marks = ()
    for t in (weight, bias):
        if isinstance(t, Tensor):
            labelling.coupling.meet(
                channels, labelling.of(t), (x.shape[1],), tuple(t.shape), "a norm of computed numbers"
            )
            own = own or labelling.of(t)
    labelling.give(out[0], [m.reshape([-1 if d == 1 else 1 for d in range(x.dim())]) for m in own or channels])
