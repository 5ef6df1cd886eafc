"""Copies of a model: in full, and as a ghost, whose tensors have shapes and no contents.

`copy.deepcopy` spends a tenth of a second on the empty dictionaries of a few hundred modules; these copies are equal to
its own and take a fraction of that.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

PLAIN = (bool, int, float, str, type(None))


def copy_of(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """As `copy.deepcopy(model, memo)`."""
    memo = {} if memo is None else memo
    modules = list(model.modules())
    if any(_copies_itself(type(module)) for module in modules):
        own: nn.Module = copy.deepcopy(model, memo)
        return own
    for module in modules:
        memo[id(module)] = type(module).__new__(type(module))
    for module in modules:
        vars(memo[id(module)]).update({name: _copied(value, memo) for name, value in vars(module).items()})
    copied: nn.Module = memo[id(model)]
    return copied


def _copies_itself(kind: type[nn.Module]) -> bool:
    special = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__")
    return any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in special)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) in PLAIN:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if type(value) in (dict, OrderedDict):
        if not value:  # most of a module's are: its hooks
            return type(value)()
        return type(value)((key, _copied(item, memo)) for key, item in value.items())
    if type(value) in (tuple, set) and all(type(item) in PLAIN for item in value):
        return type(value)(value)
    return copy.deepcopy(value, memo)


def ghost_of(model: nn.Module) -> nn.Module:
    """A copy on the meta device, without hooks: they belong to someone who did not ask for this pass."""
    memo: dict[int, Any] = {id(tensor): _without_contents(tensor) for tensor in tensors_of(model)}
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            if hooks:
                memo[id(hooks)] = type(hooks)()
    return copy_of(model, memo)


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and plain attributes that are tensors: torch.nn.utils.prune keeps a masked weight in one."""
    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            yield from (value for value in held.values() if isinstance(value, Tensor))


def _without_contents(tensor: Tensor) -> Tensor:
    ghost = tensor.detach().to("meta")
    return nn.Parameter(ghost, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else ghost
