"""Finding groups: trace the model once, sort its labels into groups, cut a little of each on shapes alone and compare.

The comparison is a second trace, of the cut network: where labels meet that did not meet before, or an operator fails,
the forward reads fixed numbers, and the groups concerned stay whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from compress.dependency.assembly import assemble
from compress.dependency.attributes import Dimensions
from compress.dependency.coupling import Comparison, Coupling
from compress.dependency.cut import cut_
from compress.dependency.families import Families, Sorter
from compress.dependency.group import Group, Grouping, Indices, Slice
from compress.dependency.labels import Array, Labels, Reasons, varying
from compress.dependency.positions import culprits
from compress.dependency.record import DoesNotRun, Record
from compress.dependency.rescaling import rescalings
from compress.dependency.spots import FixedSpots
from compress.dependency.trace import trace
from compress.dependency.traced import Traced
from zoo.classifier import auxiliary_names, classifier_name
from zoo.errors import UsageError
from zoo.ghost import copy_of, ghost_of

__all__ = ["Group", "Grouping", "Slice", "find_groups"]


def find_groups(model: nn.Module, example: Tensor, *, normalized: bool = False) -> Grouping:
    """Trace the model for inputs of the shape of `example` (B, C, H, W) and collect its groups; it is left as it was.

    The groups are those of DepGraph (Fang et al. 2023, arXiv 2301.12900), found by labels instead of a graph.

    Args:
        normalized: also widths that a LayerNorm or GroupNorm normalizes over. To cut one changes the moments of the
            others, and so the function, by more than a mask would.

    Raises:
        UsageError: the model has auxiliary heads, which run in training only and would keep their old widths; or it
            does not run on such inputs, and the message says where it stopped.
    """
    if heads := auxiliary_names(model):
        raise UsageError(
            f"{type(model).__name__} has auxiliary heads ({', '.join(heads)}), which run in training only "
            "and would not fit the pruned network: build it without them, as the zoo's googlenet is by default"
        )
    traced, inputs, fresh = _first_pass(model, example)
    dimensions, fixed = Dimensions.of(traced), FixedSpots(traced.record.operators)
    ghost, two = fresh(), torch.cat([inputs, inputs])  # the batch may be of any size
    sorter = Sorter(traced, dict(ghost.named_modules()), normalized=normalized, classifier=_classifier(model))
    try:
        whole = trace(ghost, two, Comparison(traced.labels), traced.record.named)
    except DoesNotRun:  # or of one alone
        two = inputs
        whole = trace(fresh(), two, Comparison(traced.labels), traced.record.named)
    while True:
        ghost, families = fresh(), sorter.sorted(fixed.stays)
        grouping, wrong = assemble(families, dimensions, dict(ghost.named_modules()))
        if not grouping.groups:
            break
        try:
            if not wrong:
                grouping, wrong = _compare(ghost, two, families, grouping, whole)
        except DoesNotRun as error:
            fixed.fail(families, error)
            continue
        fixed.learn(families, wrong)
        if not wrong and not fixed.doubt():
            break
    again = None if normalized else partial(find_groups, model, example, normalized=True)
    return replace(grouping, with_norms=again)


def _first_pass(model: nn.Module, example: Tensor) -> tuple[Traced, Tensor, Callable[[], nn.Module]]:
    """Trace one image: the traced model, the input, and what makes a network for the next pass.

    A network is made afresh for each pass: its forward may keep a table as wide as it was, until training starts.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    inputs = example[:1].to("meta", dtype if example.is_floating_point() else example.dtype)
    for real in (False, True):  # a forward may look at numbers, which shapes alone do not have
        inputs = torch.zeros(inputs.shape, dtype=inputs.dtype) if real else inputs
        labels, fresh = Labels(), partial(_fresh, model, real=real)
        try:
            record = trace(fresh(), inputs, Coupling(labels))
        except DoesNotRun as error:
            failure = error
            continue
        separate_(labels, record)
        labels.settle()
        return Traced(labels, record), inputs, fresh
    size = "x".join(str(n) for n in example.shape[1:])
    raise UsageError(f"{type(model).__name__} does not run on an input of {size}: {failure}") from failure


def _fresh(model: nn.Module, *, real: bool) -> nn.Module:
    return (copy_of(model).cpu() if real else ghost_of(model)).train().eval()


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


def _compare(
    ghost: nn.Module, inputs: Tensor, families: Families, grouping: Grouping, whole: Record
) -> tuple[Grouping, Reasons]:
    """Cut some of every group of `ghost`, trace it, and compare with what the pass of the whole network left behind.

    Returns:
        The grouping, with what the forward derives from widths (`Group.rescaled`), and the labels that meet wrongly or
        stand elsewhere.

    Raises:
        DoesNotRun: an operator of the cut network failed, and nothing stood elsewhere before.
    """
    keeps = _some_of(grouping)
    lost = families.lost(keeps)
    cut_(ghost, grouping, keeps)
    comparison = Comparison(families.traced.labels)
    try:
        cut = trace(ghost, inputs, comparison, families.traced.after(lost))
    except DoesNotRun as error:
        if moved := _moved(families, whole, error.record, lost):
            return grouping, moved
        raise
    if wrong := _moved(families, whole, cut, lost) or comparison.wrong:
        return grouping, wrong
    found, wrong = rescalings(families, cut, keeps)
    groups = tuple(replace(g, rescaled=tuple(found[i])) if i in found else g for i, g in enumerate(grouping.groups))
    return replace(grouping, groups=groups), wrong


def _moved(families: Families, whole: Record, cut: Record, lost: Sequence[Array]) -> Reasons:
    """Labels of the families whose cut makes the forward take other channels than it took, and where."""
    found = culprits(families.traced.labels, whole.steps, cut.steps, lost)
    return {label: why for concerned, reason in found for label, why in families.stay(concerned, reason).items()}


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
