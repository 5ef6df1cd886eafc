"""A network as a torch.export program: what a fresh process loads where it cannot build a network by its name.

The file holds the operators alone. Its weights are those of the safetensors file beside it, and nothing in it is a
pickle: torch would keep the example inputs as one, and they are left out. A file with one is refused.
"""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zoo.errors import SlimzooError, UsageError, first_line
from zoo.tensors import replace_tensor_

if TYPE_CHECKING:
    from torch import nn

PROGRAM: Final = "model.pt2"
OVERRIDDEN = ("train", "eval")  # of a program's module, which refuses them; its dropout and statistics are fixed anyway


def write_program(path: Path, model: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Write the operators of a model in eval mode, for any number of images (C, H, W).

    Raises:
        SlimzooError: torch cannot export the model.
    """
    import torch

    modes = {module: module.training for module in model.modules()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces its own coming changes
            logging.getLogger("torch.export").setLevel(logging.ERROR)
            program = torch.export.export(
                model.eval(),
                (torch.zeros(2, *input_size, device=device),),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            for name, tensor in program.state_dict.items():
                program.state_dict[name] = _like(tensor)
            program.example_inputs = None
            torch.export.save(program, path)
    except Exception as error:  # the exporter's own kinds differ from version to version
        raise SlimzooError(
            f"torch.export cannot keep {type(model).__name__} as a program, without which no other process could load "
            f"it: {first_line(error)}"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    _check_plain(path)


def _like(tensor: Any) -> Any:
    """A tensor of the same kind that takes one number in a file."""
    import torch

    number = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return torch.nn.Parameter(number, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else number


def read_program(path: Path) -> nn.Module:
    """The network of a program, its parameters and buffers named as the model's and without values.

    Raises:
        SlimzooError: a damaged file, one of another version of torch, or one with a pickle in it.
    """
    import torch

    from zoo.layout import READ

    _check_plain(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torch.export.load(path).module()
    except Exception as error:
        raise SlimzooError(f"{path} cannot be read by torch {torch.__version__}: {first_line(error)}") from error
    for name in OVERRIDDEN:
        vars(module).pop(name, None)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        owner, _, leaf = name.rpartition(".")
        if 0 in tensor.stride():
            replace_tensor_(module.get_submodule(owner), leaf, tensor.new_empty(tensor.shape))
    _take_contiguous_(module)
    vars(module)["meta"] = {**getattr(module, "meta", {}), READ: True}
    return module.eval()


def _take_contiguous_(module: Any) -> None:
    """Let the graph make its images contiguous, which its views were recorded for."""
    image = next(node for node in module.graph.nodes if node.op == "placeholder")
    readers = list(image.users)
    with module.graph.inserting_after(image):
        whole = module.graph.call_method("contiguous", (image,))
    for reader in readers:
        reader.replace_input_with(image, whole)
    module.recompile()


def refuse_program(model: nn.Module, name: str, verb: str) -> None:
    """Refuse what a step cannot change.

    Raises:
        UsageError: the model is a program.
    """
    from zoo.layout import is_program

    if is_program(model):
        raise UsageError(
            f"{name} was saved from a module of your own, and this process has only its program, which `{verb}` cannot "
            f"change: call slimzoo.from_module with a {name} first, or start from the module"
        )


def _check_plain(path: Path) -> None:
    """Refuse a file in which torch would find a pickle.

    Raises:
        SlimzooError: it has one, or is no program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = [each.filename for each in archive.infolist() if _is_pickled(archive, each)]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SlimzooError(f"{path} is no torch.export program: {first_line(error)}") from error
    if pickled:
        raise SlimzooError(f"{path} holds a pickle ({pickled[0]}), which could run anything; slimzoo reads none")


def _is_pickled(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    folder, _, name = entry.filename.partition("/data/")[2].rpartition("/")
    if name.endswith("_config.json"):
        return any(each.get("use_pickle") for each in json.loads(archive.read(entry))["config"].values())
    return bool(entry.file_size) and (folder == "sample_inputs" or name.startswith(("custom_obj", "opaque_obj")))
