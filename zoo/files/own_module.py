"""Your own nn.Module as a model that every step takes: known by a name in this process, by its program in others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import UsageError, first_line
from zoo.files.model_directory import LoadedModel, ModelConfig
from zoo.models import registry
from zoo.preprocess import Preprocess

SMALLEST = 2  # images in the batch that is tried


def from_module(
    module: nn.Module,
    example: Tensor | Sequence[int],
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
) -> LoadedModel:
    """A model of any module that classifies images, for every step: `prune(from_module(net, (3, 32, 32)), ...)`.

    The module is left alone. What the steps save of it holds its torch.export program: another process loads that, and
    can evaluate, export, quantize and measure it. To go on cutting or training a saved model there, call this with a
    module of the same kind first; the name then means it.

    Args:
        example: the size of an input (C, H, W), or inputs (B, C, H, W).
        name: of the architecture; by default that of its class.
        classes: names in the order of the logits; by default "0", "1", ...
        preprocess: how pictures become inputs; without, only tensors that are prepared as the module takes them can be
            given, and what is exported takes those.

    Raises:
        UsageError: it does not answer such inputs with logits (B, classes); `classes` or `preprocess` are not its; the
            name is one of the zoo's.
    """
    size = _input_size(example)
    name = name or type(module).__name__
    if registry.is_ours(name):
        raise UsageError(f"{name!r} is a model of the zoo; give your module another name=")
    outputs = _outputs(module, size)
    names = tuple(map(str, range(outputs) if classes is None else classes))
    if len(names) != outputs:
        raise UsageError(f"{name} answers with {outputs} logits, and classes= names {len(names)}")
    prepared = Preprocess.prepared(size) if preprocess is None else preprocess
    if (wanted := (prepared.channels, *prepared.size)) != size:
        raise UsageError(f"{name} takes {_x(size)}, and preprocess= prepares {_x(wanted)}")
    config = ModelConfig(architecture=name, model_args={"num_classes": outputs}, classes=names, preprocess=prepared)
    model = copy.deepcopy(module).eval()
    registry.register_own(name, partial(_copied, model), type(module).__module__, size)
    return LoadedModel(model, config)


def _copied(model: nn.Module, **options: Any) -> nn.Module:
    """The builder of a module that is there already: its arguments were given when it was made."""
    return copy.deepcopy(model)


def _input_size(example: Tensor | Sequence[int]) -> tuple[int, int, int]:
    sizes = tuple(example.shape[1:]) if hasattr(example, "shape") else tuple(example)
    if len(sizes) != 3 or not all(isinstance(side, int) and side > 0 for side in sizes):
        raise UsageError(f"example of sizes {sizes}: wanted (C, H, W), or inputs (B, C, H, W)")
    return sizes


def _outputs(module: nn.Module, size: tuple[int, int, int]) -> int:
    """How many logits it answers with."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    trial = copy.deepcopy(module).eval()
    try:
        with torch.no_grad():
            found = trial(torch.zeros(SMALLEST, *size, device=device))
    except Exception as error:  # every module has its own kind
        raise UsageError(f"{type(module).__name__} does not take inputs of {_x(size)}: {first_line(error)}") from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != SMALLEST or found.shape[1] < 2:
        what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise UsageError(
            f"{type(module).__name__} answers {SMALLEST} images with {what}; wanted logits ({SMALLEST}, classes)"
        )
    return int(found.shape[1])


def _x(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
