"""Finding groups: trace the model once, sort its labels into groups, cut a little of each on shapes alone and compare.

The comparison is a second trace, of the cut network: where labels meet that did not meet before, or an operator fails,
the forward reads fixed numbers, and the groups concerned stay whole.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from compress.dependency.attributes import Dimensions
from compress.dependency.coupling import Comparison, Coupling
from compress.dependency.cut import cut_
from compress.dependency.families import Families
from compress.dependency.group import Group, Grouping, Indices, Slice
from compress.dependency.labels import Array, Labels, varying
from compress.dependency.record import DoesNotRun, Record
from compress.dependency.spots import FixedSpots
from compress.dependency.trace import trace
from zoo.classifier import auxiliary_names, classifier_name
from zoo.errors import UsageError
from zoo.ghost import copy_of, ghost_of

__all__ = ["Group", "Grouping", "Slice", "find_groups"]


def find_groups(model: nn.Module, example: Tensor, *, normalized: bool = False) -> Grouping:
    """Trace the model for inputs of the shape of `example` (B, C, H, W) and collect its groups; it is left as it was.

    Args:
        normalized: also widths that a LayerNorm or GroupNorm normalizes over. To cut one changes the moments of the
            others, and so the function, by more than a mask would.

    Raises:
        UsageError: the model has auxiliary heads, which run in training only and would keep their old widths; or it
            does not run on such inputs, and where it stopped is told.
    """
    heads_of_training = auxiliary_names(model)
    if heads_of_training:
        raise UsageError(
            f"{type(model).__name__} has auxiliary heads ({', '.join(heads_of_training)}), which run in training only "
            "and would not fit the pruned network: build it without them, as the zoo's googlenet is by default"
        )
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    tokens = not example.is_floating_point()
    inputs, make = example[:1].to("meta", example.dtype if tokens else dtype), _ghost
    ghost = make(model)
    labels = Labels()
    try:
        record = trace(ghost, inputs, Coupling(labels))
    except DoesNotRun:  # it may look at numbers, which shapes alone do not have
        labels, make = Labels(), _on_cpu
        ghost, inputs = make(model), torch.zeros(inputs.shape, dtype=inputs.dtype)
        try:
            record = trace(ghost, inputs, Coupling(labels))
        except DoesNotRun as error:
            size = "x".join(str(n) for n in example.shape[1:])
            raise UsageError(f"{type(model).__name__} does not run on an input of {size}: {error}") from error
    separate_(labels, record)
    labels.settle()
    dimensions = Dimensions.of(record, labels)
    sort = partial(Families, labels, record, dimensions, normalized=normalized, classifier=_classifier(model))
    two = torch.cat([inputs, inputs])  # the batch may be of any size
    fixed, families = FixedSpots(record.operators), sort(ghost, {})
    known = families.labels_after(families.all_kept)
    try:
        whole = trace(make(model), two, Comparison(labels), known)
    except DoesNotRun:  # or of one alone
        two = inputs
        whole = trace(make(model), two, Comparison(labels), known)
    while True:
        ghost = make(model)
        families = sort(ghost, fixed.stays)
        if not families.members:
            break
        try:
            wrong = families.unequal or _compare(ghost, two, families, whole)
        except DoesNotRun as error:
            fixed.fail(families, error)
            continue
        fixed.learn(families, wrong)
        if not wrong and not fixed.doubt():
            break
    again = None if normalized else partial(find_groups, model, example, normalized=True)
    return replace(families.grouping, with_norms=again)


def _ghost(model: nn.Module) -> nn.Module:
    """Afresh for each pass: a forward may keep a table as wide as it was, until training starts."""
    return ghost_of(model).train().eval()


def _on_cpu(model: nn.Module) -> nn.Module:
    return copy_of(model).cpu().train().eval()


def _classifier(model: nn.Module) -> str:
    try:
        return classifier_name(model)
    except UsageError:
        return ""  # not a classifier: its outputs are named for what they are


def separate_(labels: Labels, record: Record) -> None:
    """Decide what became of channels that a forward laid out over several dimensions, (3, heads, width) say.

    Where attention has told heads from widths they are told apart already. A dimension that is taken apart index by
    index (q, k and v) only has to leave equally many in each; along any other, the same index goes everywhere.
    """
    coupling = Coupling(labels)
    apart = {_slabs(parts) for parts in record.parts}
    for array in record.joint:
        for slab in _taken_apart(array, apart):
            for mark in labels.resolved((slab,)):
                if len(varying(mark)) > 1:
                    coupling.split(mark, varying(mark)[:-1])
    blocks = [label for label, kind in labels.kinds.items() if kind == "blocks"]
    if blocks:
        labels.fix(np.array(blocks), "its forward splits the channels into that many blocks")


def _slabs(parts: tuple[Array, ...]) -> tuple[bytes, ...]:
    return tuple(np.sort(part, axis=None).tobytes() for part in parts)


def _taken_apart(array: Array, apart: set[tuple[bytes, ...]]) -> list[Array]:
    for dim in varying(array):
        slabs = tuple(np.moveaxis(array, dim, 0))
        if _slabs(slabs) in apart:
            return list(slabs)
    return [array]


def _compare(ghost: nn.Module, inputs: Tensor, families: Families, whole: Record) -> dict[int, str]:
    """Cut some of every group of `ghost` and trace it: labels that meet wrongly or stand elsewhere, and why.

    Where all is right, groups learn what the forward derives from their widths (`Group.rescaled`).

    Raises:
        DoesNotRun: an operator of the cut network failed, and nothing stood elsewhere before.
    """
    grouping = families.grouping
    keeps = _some_of(grouping)
    cut_(ghost, grouping, keeps)
    comparison = Comparison(families.labels)
    try:
        record = trace(ghost, inputs, comparison, families.labels_after(keeps))
    except DoesNotRun as error:
        if moved := families.moved(whole, error.record, keeps):
            return moved
        raise
    return families.moved(whole, record, keeps) or comparison.wrong or families.learn_scales(record, keeps)


def _some_of(grouping: Grouping) -> list[Indices]:
    """A random half to nine tenths of each group's channels, equally many of those that are tied.

    In turn a little and much is cut, the last and the first channel always: what a forward divides by shares of the
    whole width, or rolls over its end, must not fit by chance.
    """
    random = np.random.default_rng(0)
    shares: dict[int, float] = {}
    keeps = []
    for i, group in enumerate(grouping.groups):
        unit = i if group.tied is None else group.tied
        share = shares.setdefault(unit, random.uniform(0.8, 0.9) if len(shares) % 2 else random.uniform(0.5, 0.6))
        count = min(group.width - 1, max(2, round(share * group.width)))
        inner = 1 + random.permutation(group.width - 2)
        ends = np.array([0, group.width - 1])  # last of all those to keep
        keeps.append(np.sort(np.concatenate([inner, ends])[:count]))
    return keeps
