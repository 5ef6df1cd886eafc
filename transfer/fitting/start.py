"""What a fit starts from: the model that was asked for, checked before its weights are fetched, at a size it takes."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer.data.sources import Data
from transfer.fitting.settings import Method
from zoo.classifier import classifier_name, reset_classifier_
from zoo.create import create_model
from zoo.errors import UsageError, first_line
from zoo.files.elsewhere import directory_of
from zoo.files.model_directory import LoadedModel, ModelConfig, is_model_directory, load_model, read_config
from zoo.files.program import refuse_program
from zoo.models.registry import model_entry
from zoo.preprocess import Preprocess
from zoo.pretrained import download, upstream
from zoo.pretrained.load import fetch, preprocess_of
from zoo.pretrained.upstream import upstream_weights
from zoo.pretrained.weights import WEIGHTS
from zoo.progress import Progress

LARGEST_SIDE = 4096  # pixels; a batch of 32 such images is 6 GB before the first layer


def check(name: str | LoadedModel, method: Method, size: int | None = None) -> None:
    """Refuse what can be refused before any image is read and any weight fetched.

    Args:
        size: as `start` takes it.

    Raises:
        UsageError: an unknown name, no classifier of images, no weights, or weights that may not be downloaded; a size
            beyond LARGEST_SIDE, or one that the model does not take.
    """
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise UsageError(f"--size {size}: wanted a side from 1 to {LARGEST_SIDE} pixels")
    if isinstance(name, LoadedModel):
        return
    if is_directory(name):
        if method == "scratch":
            raise UsageError(
                f"{name} is trained already; --method scratch wants an architecture, {_config(name).architecture}"
            )
        return
    if ":" in name:
        with torch.device("meta"):
            classifier_name(create_model(name))
    elif model_entry(name).kind != "classifier":
        raise UsageError(f"{name!r} is a {model_entry(name).kind} model, and images with labels fit a classifier")
    if method != "scratch":
        _check_weights(name)
    if size is not None:
        _sized(name, _published_preprocess(name, method), size, asked=True, classes=2)


def _check_weights(name: str) -> None:
    record = upstream_weights(name) if upstream.is_upstream(name) else WEIGHTS.get(name)
    if record is None:
        raise UsageError(
            f"no pretrained weights on record for {name!r}; use --method scratch, or a model that has them "
            "(`slimzoo models` says which)"
        )
    if download.is_offline() and not record.available_offline():
        raise download.not_here(name, download.FORBIDDEN, record.size_bytes)


def start(
    name: str | LoadedModel, data: Data, method: Method, size: int | None, progress: Progress | None
) -> tuple[nn.Module, ModelConfig]:
    """The model to train, its classifier fresh, and its config.

    Args:
        size: side of the images in pixels; None takes `default_size`, or the published one where the model is too deep
            for that, or has a position for each of its patches.

    Raises:
        UsageError: a size that the model does not take; see also `check`, which comes before.
    """
    if isinstance(name, LoadedModel):
        afresh = method != "scratch" or name.config.classes is None or len(name.config.classes) != len(data.classes)
        return _start_from(LoadedModel(copy.deepcopy(name.model), name.config), name, data, size, afresh)
    if is_directory(name):
        return _start_from(load_model(name), name, data, size)
    arguments, preprocess = planned_start(name, data, method, size)
    if method != "scratch":
        fetch(name, progress=progress)
    network = create_model(name, pretrained=method != "scratch", **arguments)
    reset_classifier_(network, len(data.classes))
    return network, ModelConfig(architecture=name, model_args=arguments, classes=data.classes, preprocess=preprocess)


def planned_start(
    name: str | LoadedModel, data: Data, method: Method, size: int | None
) -> tuple[dict[str, Any], Preprocess]:
    """The arguments of the model's builder and what is done to its images; nothing is fetched or built.

    Raises:
        UsageError: as `start`.
    """
    if isinstance(name, LoadedModel) or is_directory(name):
        config = name.config if isinstance(name, LoadedModel) else _config(name)
        return config.model_args, _whole(config.preprocess, size)
    given = _published_preprocess(name, method)
    side = size or default_size(data, given.size[0])
    arguments, side = _sized(name, given, side, asked=size is not None, classes=len(data.classes))
    return arguments, replace(given.at(side), mode="squash", resize_to=None)


def _sized(name: str, given: Preprocess, side: int, *, asked: bool, classes: int) -> tuple[dict[str, Any], int]:
    """What to build the model with for images of that side, or of its own where it does not take it, and the side.

    Raises:
        UsageError: it does not take the side that was `asked` for.
    """
    arguments: dict[str, Any] = {"num_classes": classes}
    if given.channels != 3:
        arguments["in_channels"] = given.channels
    sized, reason = _arguments_for(name, arguments, side)
    if reason and asked and name.startswith("timm:"):
        sized, reason = {"img_size": side}, _refusal(name, {**arguments, "img_size": side}, side)
    if reason and asked:
        raise UsageError(f"{name} does not take --size {side}, its own is {given.size[0]}: {reason}")
    if reason:
        side = given.size[0]
        sized, _ = _arguments_for(name, arguments, side)
    return arguments | sized, side


def is_directory(name: str) -> bool:
    """Whether `name` is a model directory, or means one of timm's, as "timm:hf-hub:OWNER/NAME" does."""
    return upstream.place_of(name) is not None or is_model_directory(Path(name))


def _config(name: str) -> ModelConfig:
    return read_config(directory_of(name))


def _whole(preprocess: Preprocess, size: int | None) -> Preprocess:
    """At that size, or its own, of the whole picture."""
    if preprocess.is_prepared:
        return preprocess
    return replace(preprocess if size is None else preprocess.at(size), mode="squash", resize_to=None)


def _start_from(
    loaded: LoadedModel, name: object, data: Data, size: int | None, afresh: bool = True
) -> tuple[nn.Module, ModelConfig]:
    """Somebody's network, at the size that it was trained at or another that it takes.

    Args:
        afresh: whether its classifier starts from nothing.
    """
    config = loaded.config
    refuse_program(loaded.model, config.architecture, "fit")
    if "taps" in config.model_args:
        raise UsageError(
            f"{name} has a classifier that sees several depths: fit from {config.architecture}, or --no-taps"
        )
    if afresh:
        reset_classifier_(loaded.model, len(data.classes))
    preprocess = _whole(config.preprocess, size)
    arguments = {**config.model_args, "num_classes": len(data.classes)}
    try:
        with torch.no_grad():
            loaded.model(torch.zeros(1, preprocess.channels, *preprocess.size))
    except Exception as error:  # every model has its own kind
        raise UsageError(f"{name} does not take --size {size}, its own is {config.preprocess.size[0]}") from error
    if size is not None and preprocess.size != (size, size):
        raise UsageError(f"--size {size}: {name} takes tensors of {preprocess.size}, prepared by you; leave it out")
    return loaded.model, replace(config, model_args=arguments, classes=data.classes, preprocess=preprocess)


def default_size(data: Data, pretrained_size: int) -> int:
    """1.5 times the median side of up to 32 images, in multiples of 32, at least 64, at most the pretrained size."""
    chosen = np.linspace(0, len(data.keys) - 1, num=min(32, len(data.keys))).astype(int)
    side = float(np.median([max(data.read(int(i), (pretrained_size, pretrained_size)).shape[:2]) for i in chosen]))
    return min(pretrained_size, max(64, 32 * round(1.5 * side / 32)))


def _published_preprocess(name: str, method: Method) -> Preprocess:
    if upstream.is_upstream(name):
        with torch.device("meta"):
            return upstream.preprocess_of(create_model(name))
    if method != "scratch":
        return preprocess_of(WEIGHTS[name])
    channels, height, width = model_entry(name).input_size
    if channels == 3:
        return Preprocess(size=(height, width))
    return Preprocess(size=(height, width), mean=(0.5,), std=(0.5,))


def _arguments_for(name: str, arguments: dict[str, Any], side: int) -> tuple[dict[str, Any], str]:
    """What to build the model with for images of that size, and why it does not take them ("" if it does)."""
    wants_size = ":" not in name and "image_size" in inspect.signature(model_entry(name).build).parameters
    sized = {"image_size": side} if wants_size else {}
    return sized, _refusal(name, {**arguments, **sized}, side)


def _refusal(name: str, arguments: dict[str, Any], side: int) -> str:
    """Why the model does not run on images of that size, found with shapes alone; "" if it does."""
    try:
        with torch.device("meta"), torch.no_grad():
            model = create_model(name, **arguments).eval()
            model(torch.empty(1, arguments.get("in_channels", 3), side, side))
    except Exception as error:  # every model has its own kind
        return first_line(error)[:200]
    return ""
