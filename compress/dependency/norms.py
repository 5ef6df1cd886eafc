"""Rules for normalizations: scale and shift have one number per channel; some take moments over the channels."""

from __future__ import annotations

from torch import Tensor

from compress.dependency.labelling import PIXELS, Call, Labelling
from compress.dependency.labels import Marks, aligned, along, as_marks, only, squeezed, varying
from compress.dependency.products import GROUPS


def batch_norm(labelling: Labelling, call: Call) -> None:
    """Normalizes each channel of (B, C, ...) over all else, by moments that it took or was given."""
    x, marks = call.x, labelling.of(call.x)
    channels, kept = along(marks, 1), [m for m in marks if m.shape[1] == 1]
    if any(a is True for a in call.args):  # as in training; a weight is standardized so
        labelling.coupling.normalize(tuple(kept), f"a norm takes its moments over it ({labelling.module})")
    own: Marks = ()
    for t in call.args[1:5]:
        if isinstance(t, Tensor):
            theirs = labelling.of(t, given=only(channels))
            reason = "a BatchNorm of numbers that are no layer's output"
            labelling.coupling.meet(channels, theirs, (x.shape[1],), tuple(t.shape), reason)
            own = own or theirs
    labelling.give(call.outs[0], [*as_marks(own or channels, 1, x.dim()), *kept])


def layer_norm(labelling: Labelling, call: Call) -> None:
    """Normalizes over the last dimensions, as many as `normalized_shape` has."""
    x, shape, weight, bias = call.args[:4]
    marks, first = labelling.of(x), x.dim() - len(shape)
    seen = tuple(m for m in marks if any(d >= first for d in varying(m)))
    labelling.coupling.normalize(seen, f"a LayerNorm normalizes over it ({labelling.module})")
    for t in (weight, bias):
        if isinstance(t, Tensor):
            labelling.meet(x, t)
    inside = tuple(m.reshape(m.shape[first:]) for m in seen if all(d >= first for d in varying(m)))
    labelling.record.norms.append((labelling.module, tuple(x.shape[first:]), inside))
    own = isinstance(weight, Tensor) and len(seen) == len(marks) == 1
    labelling.give(call.outs[0], aligned(labelling.of(weight), x.dim()) if own else marks)


def group_norm(labelling: Labelling, call: Call) -> None:
    """Normalizes over the pixels and channels of each group of (B, C, ...)."""
    x, weight, bias, groups = call.x, call.args[1], call.args[2], call.args[6]
    marks = labelling.coupling.level(labelling.of(x), tuple(range(2, x.dim())), PIXELS)
    channels = along(marks, 1)
    blocks = tuple(squeezed(m.reshape(groups, -1)) for m in channels)
    separate = labelling.coupling.separate(blocks, (0,), GROUPS) if groups > 1 else blocks
    within = tuple(m for m in separate if m.shape[1] > 1)
    labelling.coupling.normalize(within, f"a GroupNorm normalizes over it ({labelling.module})")
    labelling.note_groups(groups, [m for m in separate if m.shape[0] > 1])
    own: Marks = ()
    for t in (weight, bias):
        if isinstance(t, Tensor):
            theirs = labelling.of(t)
            labelling.coupling.meet(channels, theirs, (x.shape[1],), tuple(t.shape), "a norm of computed numbers")
            own = own or theirs
    labelling.give(call.outs[0], as_marks(own or channels, 1, x.dim()))
