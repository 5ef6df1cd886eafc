"""Surgery: what turned an architecture's own layers into those of a pruned model, as an ordered list of operations.

A pruned model loads as any other: build the architecture, operate, load the weights. Few kinds of operation are
enough: tensors take the shapes found in the safetensors file, which needs no record, `leave_out` puts an identity where
a residual block was, and `set_attr` repeats every plain attribute (channels, groups, heads, split sizes) that differs
from the fresh architecture's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Size, nn

from zoo.blocks import blocks_left_out, leave_out_
from zoo.tensors import replace_tensor_

Operation = dict[str, Any]


def _is_plain(value: object) -> bool:
    if isinstance(value, bool | int | float | str):
        return True
    return isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def surgery_between(fresh: nn.Module, operated: nn.Module) -> list[Operation]:
    """The operations that give `fresh` the attributes of `operated`, in module order.

    Raises:
        ValueError: the two do not have the same modules; more than that was changed, which cannot be recorded.
    """
    gone = blocks_left_out(fresh, operated)
    before = {
        name: module
        for name, module in fresh.named_modules()
        if name not in gone and not name.startswith(tuple(f"{block}." for block in gone))
    }
    after = {name: module for name, module in operated.named_modules() if name not in gone}
    if before.keys() != after.keys() or any(type(before[name]) is not type(after[name]) for name in before):
        odd = sorted(before.keys() ^ after.keys()) or [n for n in before if type(before[n]) is not type(after[n])]
        raise ValueError(f"the model's modules are not its architecture's: {', '.join(odd[:3])}; it cannot be saved")
    operations: list[Operation] = [{"op": "leave_out", "module": name} for name in gone]
    for name, module in after.items():
        original = _plain_attributes(before[name])
        for attribute, value in _plain_attributes(module).items():
            if attribute in original and original[attribute] != value:
                value = list(value) if isinstance(value, tuple) else value
                operations.append({"op": "set_attr", "module": name, "name": attribute, "value": value})
    return operations


def apply_surgery_(model: nn.Module, operations: list[Operation], shapes: Mapping[str, Size]) -> None:
    """Repeat recorded operations and give every parameter and buffer the shape named for it, values unset.

    Raises:
        ValueError: an operation of an unknown kind, as a newer version may write.
    """
    for operation in operations:
        if operation["op"] == "leave_out":
            leave_out_(model, [operation["module"]])
        elif operation["op"] == "set_attr":
            module, name, value = model.get_submodule(operation["module"]), operation["name"], operation["value"]
            setattr(module, name, type(getattr(module, name))(value))
        else:
            raise ValueError(f"surgery {operation['op']!r} is unknown to this version; install a newer slimzoo")
    modules = dict(model.named_modules())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in shapes and tensor.shape != shapes[name]:
            owner, _, leaf = name.rpartition(".")
            replace_tensor_(modules[owner], leaf, tensor.new_empty(shapes[name]))
