"""Copies of a model: in full, and as a ghost, whose tensors have shapes and no contents.

`copy.deepcopy` spends a tenth of a second on the empty dictionaries of a few hundred modules; these copies are equal to
its own and take a fraction of that.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

PLAIN = frozenset((bool, int, float, str, type(None)))
DICTS = frozenset((dict, OrderedDict))


def copy_of(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """As `copy.deepcopy(model, memo)`."""
    return _copy_of(model, list(model.modules()), {} if memo is None else memo)


def _copy_of(model: nn.Module, modules: list[nn.Module], memo: dict[int, Any]) -> nn.Module:
    if any(_copies_itself(kind) for kind in {type(module) for module in modules}):
        copied: nn.Module = copy.deepcopy(model, memo)
        return copied
    for module in modules:
        memo[id(module)] = type(module).__new__(type(module))
    for module in modules:
        own = vars(memo[id(module)])
        for name, value in vars(module).items():
            kind = type(value)
            if kind in PLAIN:
                own[name] = value
            elif kind in DICTS and not value:  # most of a module's are: its hooks
                own[name] = kind()
            else:
                own[name] = _copied(value, memo)
    copied = memo[id(model)]
    return copied


def _copies_itself(kind: type[nn.Module]) -> bool:
    special = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__")
    return any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in special)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in PLAIN:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind in DICTS:
        return kind({key: _copied(item, memo) for key, item in value.items()})
    if (kind is tuple or kind is set) and all(type(item) in PLAIN for item in value):
        return kind(value)
    if kind is nn.Parameter and value.is_leaf:
        memo[id(value)] = parameter = nn.Parameter(value.detach().clone(), value.requires_grad)
        return parameter
    if isinstance(value, Tensor) and not value.is_leaf:  # a table that a forward has computed and kept
        memo[id(value)] = kept = value.detach().clone()
        return kept
    return copy.deepcopy(value, memo)


def ghost_of(model: nn.Module) -> nn.Module:
    """A copy on the meta device, without hooks: they belong to someone who did not ask for this pass."""
    modules = list(model.modules())
    memo: dict[int, Any] = {id(tensor): _without_contents(tensor) for tensor in _tensors_of(modules)}
    for module in modules:
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            if hooks:
                memo[id(hooks)] = type(hooks)()
    return _copy_of(model, modules, memo)


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and plain attributes that are tensors: torch.nn.utils.prune keeps a masked weight in one."""
    return _tensors_of(model.modules())


def _tensors_of(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    for module in modules:
        for held in (module._parameters, module._buffers, vars(module)):
            for value in held.values():
                if isinstance(value, Tensor):
                    yield value


def _without_contents(tensor: Tensor) -> Tensor:
    ghost = tensor.detach().to("meta")
    return nn.Parameter(ghost, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else ghost
