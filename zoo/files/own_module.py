"""Your own nn.Module as a model that every step takes: known by a name in this process, by its program in others."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.classifier import CHOSEN, can_classify
from zoo.errors import UsageError, first_line
from zoo.files.model_directory import LoadedModel, ModelConfig
from zoo.layout import keep_contiguous_
from zoo.models import registry
from zoo.preprocess import Preprocess

IMAGES = 2  # in the batch that is tried
NAME = re.compile(r"[A-Za-z_][\w.+-]*")


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
    module of the same kind and the saved model's `name` first, which then means it.

    Args:
        example: the size of an input (C, H, W), or inputs (B, C, H, W).
        name: of the architecture; by default that of its class, with a number where another module has that.
        classes: names in the order of the logits; by default "0", "1", ...
        preprocess: how pictures become inputs; without, only tensors that are prepared as the module takes them can be
            given, and what is exported takes those.

    Raises:
        UsageError: it does not answer such inputs with logits (B, classes), or changes them; `classes` or `preprocess`
            are not its; the name is one of the zoo's.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"a {type(module).__name__}, where an nn.Module is wanted")
    module = _bare(module)
    size, named = _input_size(example), _name(module, name)
    model, outputs = _tried(module, size)
    names = tuple(map(str, range(outputs) if classes is None else classes))
    if len(names) != outputs or len(set(names)) < outputs:
        raise UsageError(f"{named} answers with {outputs} logits, and classes= names {len(set(names))} different ones")
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        raise UsageError(f"preprocess={preprocess!r}: wanted a slimzoo.Preprocess")
    prepared = Preprocess.prepared(size) if preprocess is None else preprocess
    if (wanted := (prepared.channels, *prepared.size)) != size:
        raise UsageError(f"{named} takes {_x(size)}, and preprocess= prepares {_x(wanted)}")
    config = ModelConfig(architecture=named, model_args={"num_classes": outputs}, classes=names, preprocess=prepared)
    registry.register_own(named, partial(_copied, copy.deepcopy(model)), type(module).__module__, size)
    return LoadedModel(model, config)


def _copied(model: nn.Module, **options: Any) -> nn.Module:
    """The builder of a module that is there already: its arguments were given when it was made."""
    return copy.deepcopy(model)


def _bare(module: nn.Module) -> nn.Module:
    """The module inside a wrapper that spreads or compiles it."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    module = getattr(module, "_orig_mod", module)
    if any(map(parametrize.is_parametrized, module.modules())):
        raise UsageError(
            f"{type(module).__name__} has parametrized weights; make them plain first, with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    return module


def _name(module: nn.Module, name: str | None) -> str:
    given = name or type(module).__name__
    if not NAME.fullmatch(given):
        raise UsageError(f"name={given!r}: wanted letters, digits, '_', '.', '+' and '-', a letter first")
    if name is None:
        taken = (f"{given}-{number}" if number > 1 else given for number in itertools.count(1))
        return next(each for each in taken if not registry.is_registered(each) and not registry.is_users(each))
    if registry.is_registered(name):
        raise UsageError(f"{name!r} is a model of the zoo; give your module another name=")
    return name


def _input_size(example: Tensor | Sequence[int]) -> tuple[int, int, int]:
    given: Any = getattr(example, "shape", [None])[1:] if hasattr(example, "shape") else example
    try:
        channels, height, width = map(int, given)
    except (TypeError, ValueError):
        raise UsageError(f"example={given!r}: wanted (C, H, W), or inputs (B, C, H, W)") from None
    if min(channels, height, width) < 1:
        raise UsageError(f"example={given!r}: wanted sizes above 0")
    return channels, height, width


def _tried(module: nn.Module, size: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """A copy that has answered once, in eval mode, and the number of its logits.

    Where no single layer gives the logits, it has none that could be refitted; where its forward flattens by `view`,
    its images stay contiguous.
    """
    kind = type(module).__name__
    try:
        model = copy.deepcopy(module).cpu().float().eval()
        images = torch.randn(IMAGES, *size, generator=torch.Generator().manual_seed(0))
        given, made = images.clone(), dict[int, str]()

        def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
            made[output.data_ptr()] = name

        layers = [(name, layer) for name, layer in model.named_modules() if can_classify(layer)]
        hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in layers]
        with torch.no_grad():
            logits = model(given)
        for hook in hooks:
            hook.remove()
    except Exception as error:  # every module has its own kind
        raise UsageError(f"{kind} does not take inputs of {_x(size)}: {first_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != IMAGES or logits.shape[1] < 2:
        what = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"{kind} answers {IMAGES} images with {what}; wanted logits ({IMAGES}, classes)")
    if not torch.equal(images, given):
        raise UsageError(f"{kind} changes its input in place; use inplace=False in what comes first")
    vars(model)[CHOSEN] = made.get(logits.data_ptr(), "")
    try:
        with torch.no_grad():
            model.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        keep_contiguous_(model)
    return model.to(memory_format=torch.contiguous_format), int(logits.shape[1])


def _x(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
