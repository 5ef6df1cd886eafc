"""Weights that somebody else saved: read without running their code, found in what was saved around them, and fitted to
the names of an architecture.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import SlimzooError, UsageError, first_line

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")  # of a file of weights; .tar ends .pth.tar
# Where training scripts put the weights, what they averaged over training (EMA) first, as timm takes it.
AROUND = tuple(
    (
        "state_dict_ema model_ema ema_state_dict ema_model ema params_ema state_dict model_state_dict model_state "
        "model net network weights params"
    ).split()
)
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # inside names, of torch's own
COUNTER = "num_batches_tracked"  # of BatchNorm; old files lack it, and nothing depends on it here
NAMED = 3  # keys of each kind in an error

State = dict[str, "Tensor"]


def is_state_file(source: str | Path) -> bool:
    """Tell a file of weights by its name."""
    return Path(source).suffix.lower() in SUFFIXES and not Path(source).is_dir()


def read_state(path: Path) -> tuple[State, str | None]:
    """The tensors of a file by name, and under which keys of the file they were ("model_ema"); None at its top.

    Raises:
        UsageError: one that holds pickled objects, which would be run; one without tensors.
        SlimzooError: a damaged file.
    """
    found, taken = _tensors_in(_load(path))
    if not found:
        raise UsageError(f"{path} holds no tensors by name; wanted what torch.save(model.state_dict(), FILE) writes")
    return {_unwrapped(name): tensor for name, tensor in found.items()}, taken


def _load(path: Path) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    if path.suffix.lower() == ".safetensors":
        try:
            return load(path.read_bytes())  # a map would keep Windows from moving the file
        except SafetensorError as error:
            raise SlimzooError(f"{path} is no whole safetensors file: {first_line(error)}") from error
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):  # a script's options
            warnings.simplefilter("ignore")  # of what is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of zip, of pickle, of torch
        said = str(error)
        if "weights_only" in said.lower() or "torchscript" in said.lower():
            raise UsageError(
                f"{path} holds more than weights ({_global_in(said)}), and reading it would run code: where it was "
                "made, save model.state_dict() alone, or as safetensors"
            ) from error
        raise SlimzooError(f"{path} cannot be read as weights: {first_line(error)}") from error


def _global_in(said: str) -> str:
    """The pickled class that torch's message names."""
    _, found, rest = said.partition("GLOBAL ")
    return f"a pickled {rest.split()[0]}" if found else "a pickled module or TorchScript"


def _tensors_in(found: Any, taken: str | None = None) -> tuple[State, str | None]:
    import torch

    if not isinstance(found, Mapping):
        return {}, None
    for key in AROUND:
        inner, where = _tensors_in(found.get(key), key if taken is None else f"{taken}.{key}")
        if inner:
            return inner, where
    tensors = {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
    if tensors:
        return tensors, taken
    others = [(str(key), inner) for key, value in found.items() if (inner := _tensors_in(value)[0])]
    return (others[0][1], others[0][0]) if len(others) == 1 else ({}, None)


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def prefix_of(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What stands before the architecture's names in the file's: "module.", "model.", "ema.module."; "" for nothing."""
    names = set(state)
    ends = {name.rpartition(".")[2] for name in wanted}
    some = [name for name in wanted if not name.endswith(COUNTER)]
    candidates = {""}
    for name in names:
        if name.rpartition(".")[2] in ends:
            parts = name.split(".")
            candidates |= {".".join(parts[:i]) + "." for i in range(1, min(len(parts), 5))}
    return max(sorted(candidates), key=lambda prefix: (sum(prefix + name in names for name in some), -len(prefix)))


def fitted(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, what: str) -> State:
    """The tensors of `state` under the architecture's names, all of them.

    What stands outside the network's prefix (the criterion of a Lightning module, a counter of averages) is left.

    Args:
        wanted: the architecture's state dict, on whatever device.
        what: "FILE and resnet18", for the error.

    Raises:
        UsageError: keys are missing, unexpected or of another shape; the first of each kind are named.
    """
    prefix = prefix_of(state, wanted)
    names = {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}
    if not prefix:
        names.pop("n_averaged", None)  # of torch's AveragedModel
    missing = [name for name in wanted if name not in names and not name.endswith(COUNTER)]
    unexpected = [name for name in names if name not in wanted]
    shapes = [
        f"{name} {_by(state[names[name]])}, wanted {_by(tensor)}"
        for name, tensor in wanted.items()
        if name in names and state[names[name]].shape != tensor.shape
    ]
    if missing or unexpected or shapes:
        kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        told = "; ".join(f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys)
        fits = len(wanted) - len([name for name in wanted if name not in names]) - len(shapes)
        raise UsageError(f"{what} do not fit: of {len(wanted)} keys {fits} do; {told}; name another --arch")
    return {name: state[names[name]] for name in wanted if name in names}


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:NAMED]) + (", ..." if len(keys) > NAMED else "")


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
