"""Rules for operators that lay channels out anew: halves that meet, windows that become columns, sampled pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compress.dependency.labelling import Labelling
from compress.dependency.labels import varying

PIXELS = "its pixels are channels of another layer"


def glu(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """The first half times the sigmoid of the second: a channel goes with its gate."""
    x, dim = args[0], (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % args[0].dim()
    given = []
    for mark in labelling.of(x):
        if mark.shape[dim] > 1:
            value, gate = np.split(mark, 2, axis=dim)
            labelling.coupling.equal(value, gate, "its gate stays")
            mark = value
        given.append(mark)
    labelling.give(out, given)


def unfolding(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """im2col: (B, C, H, W) -> (B, C x window, L)."""
    x, window = args[0], math.prod(args[1])
    marks = labelling.coupling.level(labelling.of(x), tuple(range(x.dim() - 2, x.dim())), PIXELS)
    labelling.give(out, [m.reshape(m.shape[:-1]).repeat(window if m.shape[-3] > 1 else 1, axis=-2) for m in marks])


def folding(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """col2im: (B, C x window, L) -> (B, C, H, W)."""
    x, window = args[0], math.prod(args[2])
    given = []
    for mark in labelling.coupling.level(labelling.of(x), (x.dim() - 1,), PIXELS):
        if mark.shape[-2] > 1:
            parts = mark.reshape(*mark.shape[:-2], -1, window)
            (mark,) = labelling.coupling.level((parts,), (parts.ndim - 1,), PIXELS)
        given.append(mark[..., None] if mark.shape[-2] == 1 and mark.ndim == x.dim() else mark.reshape(
            *mark.shape[:-2], -1, 1, 1
        ))  # fmt: skip
    labelling.give(out, given)


def sampling(labelling: Labelling, func: Any, out: Any, args: Any, kwargs: Any) -> None:
    """grid_sample: each pixel comes from where a grid says."""
    x, grid = args[:2]
    for mark in labelling.of(grid):
        if varying(mark):
            labelling.coupling.fix(mark, "it says which pixels are sampled")
    labelling.give(out, labelling.coupling.level(labelling.of(x), tuple(range(2, x.dim())), PIXELS))
