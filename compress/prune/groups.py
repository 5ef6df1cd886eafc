"""Groups: sets of channels, across layers, that can only go together (Fang et al. 2023, DepGraph, arXiv 2301.12900).

A convolution's output channel is also an input channel of its consumers, a channel of the BatchNorm between them, and,
through residual additions and depthwise convolutions, an output channel of other layers. A `Group` says so in plain
names and indices. torch-pruning traces the couplings; everything after that is ours.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.classifier import auxiliary_names, classifier_name
from zoo.errors import UsageError

Axis = Literal["out", "in"]


@dataclass(frozen=True, eq=False)
class Slice:
    """The part of one module that belongs to a group.

    Attributes:
        module: dotted name.
        axis: "out" for rows of a weight (also a depthwise convolution's or a norm's channels), "in" for its columns.
        channels: indices along that axis.
        roots: for each of them, the group's channel that it goes with. One channel may go with many indices: after a
            flattening, every pixel of it is a column.
    """

    module: str
    axis: Axis
    channels: NDArray[np.intp]
    roots: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Group:
    """`width` channels, named after the layer that makes them, and every slice that goes with them."""

    name: str
    width: int
    slices: tuple[Slice, ...]

    def __str__(self) -> str:
        members = ", ".join(f"{s.module}[{s.axis}]" for s in self.slices)
        return f"{self.name}: {self.width} channels of {members}"


@dataclass(frozen=True)
class Grouping:
    """All groups that may be cut, and the layers whose outputs stay whole, with the reason."""

    groups: tuple[Group, ...]
    whole: dict[str, str]


def find_groups(model: nn.Module, example: Tensor) -> Grouping:
    """Trace the model on `example` (B, C, H, W) and collect its groups; the model is left as it was.

    Kept whole: the classifier's outputs; widths that a LayerNorm or GroupNorm sees, since cutting them changes the
    function by more than a mask would; attention heads; grouped convolutions; bare parameters such as positions.

    Raises:
        UsageError: the model has auxiliary heads, which run in training only and would keep their old widths.
    """
    import torch_pruning

    heads_of_training = auxiliary_names(model)
    if heads_of_training:
        raise UsageError(
            f"{type(model).__name__} has auxiliary heads ({', '.join(heads_of_training)}), which run in training only "
            "and would not fit the pruned network: build it without them, as the zoo's googlenet is by default"
        )
    model = copy.deepcopy(model).eval()
    names = {module: name for name, module in model.named_modules()}
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the trace follows the autograd graph
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # torch-pruning announces bare parameters, which stay whole here anyway
        graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
        traced = list(graph.get_all_groups())
    heads = classifier_name(model)
    attention = tuple(f"{name}." for name, module in model.named_modules() if hasattr(module, "num_heads"))
    groups, whole = [], {}
    for items in traced:
        group, reason = _convert(items, graph, names)
        reason = reason or _reason_to_keep(group, model, heads, attention)
        if reason:
            whole[group.name] = reason
        else:
            groups.append(group)
    return Grouping(tuple(groups), whole)


def _convert(items, graph, names) -> tuple[Group, str | None]:  # type: ignore[no-untyped-def]
    """torch-pruning's group as ours, and why it cannot be cut, if so."""
    root = items[0].dep.target.module
    reason = None
    parts: dict[tuple[str, Axis], list[tuple[int, int]]] = {}
    for item in items:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            reason = "a bare parameter is added to it"
            continue
        if module not in names:  # an addition, a concatenation, a flattening: nothing to cut
            continue
        two_sided = isinstance(module, nn.Conv2d | nn.Linear) and not _is_depthwise(module)
        axis: Axis = "in" if two_sided and graph.is_in_channel_pruning_fn(item.dep.handler) else "out"
        pairs = parts.setdefault((names[module], axis), [])
        pairs.extend(zip(item.idxs, item.root_idxs, strict=True))
    slices = []
    for (name, axis), pairs in parts.items():
        unique = np.array(sorted(set(pairs)), dtype=np.intp).reshape(-1, 2)
        slices.append(Slice(name, axis, unique[:, 0], unique[:, 1]))
    width = 1 + max((int(s.roots.max()) for s in slices if len(s.roots)), default=-1)
    return Group(names[root], width, tuple(slices)), reason


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1 and module.groups == module.out_channels


def _reason_to_keep(group: Group, model: nn.Module, classifier: str, attention: tuple[str, ...]) -> str | None:
    for s in group.slices:
        module = model.get_submodule(s.module)
        if s.module == classifier and s.axis == "out":
            return "its outputs are the classes"
        if s.module.startswith(attention):
            return f"attention reads it ({s.module})"
        if isinstance(module, nn.Conv2d) and module.groups > 1 and not _is_depthwise(module):
            return f"a grouped convolution reads it ({s.module})"
        if not isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d):
            return f"no rule to cut {type(module).__name__} ({s.module})"
    return None
