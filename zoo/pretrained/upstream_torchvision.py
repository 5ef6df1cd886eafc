"""torchvision's side of upstream.py: its modules, its weights, the preprocessing that its transforms stand for."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import SlimzooError, UsageError, did_you_mean, first_line
from zoo.preprocess import Preprocess
from zoo.pretrained import download
from zoo.pretrained.library_caches import checkpoints
from zoo.progress import Progress

if TYPE_CHECKING:
    from torch import nn


def create_model(
    name: str, *, pretrained: bool, num_classes: int | None, in_channels: int, **options: Any
) -> nn.Module:
    """The structure is the pretrained model's, whether or not the weights are loaded, so that a saved one loads."""
    from zoo.tensors import load_tensors_

    weights = weights_of(name)
    if in_channels != 3:
        raise UsageError(
            f"torchvision:{name} takes 3 channels, not {in_channels}: torchvision has no argument for it, "
            "timm's models and the zoo's have in_channels"
        )
    recorded = len(weights.meta["categories"])
    wanted = recorded if num_classes is None else num_classes
    if pretrained and wanted == recorded:
        model = _build(name, weights, options)
    else:
        model = _build(name, None, {**_structure(name, weights), "num_classes": wanted, **options})
    if pretrained and wanted != recorded:  # all but the classifiers, whose shape is another
        own, found = model.state_dict(), _build(name, weights, options).state_dict()
        state = {key: own[key] if own[key].shape != tensor.shape else tensor for key, tensor in found.items()}
        load_tensors_(model, state)
    model.torchvision_weights = weights  # for `preprocess_of`; it holds no tensor
    return model


def weights_of(name: str) -> Any:
    """torchvision's record of the weights that NAME or NAME.TAG means; its default if there is no tag.

    Raises:
        UsageError: no such name or tag, or no image classifier.
    """
    from torchvision import models

    base, _, tag = name.partition(".")
    classifiers = models.list_models(module=models)
    if base not in classifiers:
        if base in models.list_models():
            kind = models.get_model_builder(base).__module__.split(".")[2]
            raise UsageError(f"torchvision:{base} is a model for {kind}: only image classifiers in float are supported")
        otherwise = "see torchvision.models.list_models()"
        raise UsageError(f"torchvision has no model {base!r}: {did_you_mean(base, classifiers, otherwise)}")
    known = models.get_model_weights(base)
    if tag and tag not in known.__members__:
        raise UsageError(f"torchvision:{base} has no weights {tag!r}: {', '.join(known.__members__)}")
    weights = known[tag] if tag else known.DEFAULT
    if not weights.meta["categories"]:
        raise UsageError(f"torchvision:{name} are weights of features without a classifier")
    return weights


def _build(name: str, weights: Any, options: dict[str, Any]) -> nn.Module:
    import torch
    from torchvision import models

    if weights is not None:
        _only_tensors(file_of(name, weights))
    build = functools.partial(models.get_model, name.partition(".")[0], weights=weights, **options)
    try:
        return build()  # type: ignore[no-any-return]
    except NotImplementedError:  # RegNet computes its widths with tensors, and the meta device computes nothing
        here = torch.empty(0).device
        with torch.device("cpu"):
            return build().to(here)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        if not re.search("unexpected keyword argument|expected value", str(error)):
            raise
        raise UsageError(f"torchvision:{name}: {error}") from error


def _structure(name: str, weights: Any) -> dict[str, Any]:
    """The arguments that torchvision's builders set when they load weights."""
    if name.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    return {
        "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": True},
        "inception_v3": {"transform_input": True, "init_weights": True},
    }.get(name.partition(".")[0], {})


def file_of(name: str, weights: Any, progress: Progress | None = None) -> Path:
    """The file of the weights where torchvision looks for it, its hash checked."""
    path = checkpoints() / str(weights.url).rpartition("/")[2]
    digest = path.stem.rpartition("-")[2]  # torchvision's file names end with the first digits of the SHA-256
    if path.exists():
        download.verify(path, digest)
        return path
    download.check_reachable(f"torchvision:{name}", weights.url, size_bytes=weights.meta["_file_size"] * 2**20)
    download.download(weights.url, path, sha256=digest, progress=progress)
    return path


def _only_tensors(path: Path) -> None:
    """torchvision reads its files as any pickle; here they are read once before, as tensors and nothing else."""
    import pickle

    import torch

    try:
        torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        line = first_line(error)
        raise SlimzooError(f"{path} cannot be read as tensors alone: {line}") from error


def preprocess_from(weights: Any) -> Preprocess:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    name, transforms = str(weights), weights.transforms()
    if type(transforms) is not ImageClassification:
        raise SlimzooError(f"transforms {type(transforms).__name__} of {name}: ImageClassification is wanted")
    if transforms.interpolation not in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        raise SlimzooError(f"interpolation {transforms.interpolation.value!r} of {name}: bilinear or bicubic is wanted")
    if not transforms.antialias:
        raise SlimzooError(f"antialias={transforms.antialias} of {name}: True is wanted")
    (crop,), (resize_to,) = transforms.crop_size, transforms.resize_size
    if resize_to < crop:
        raise SlimzooError(f"a crop to {crop} px of {resize_to} px of {name}: it would be padded")
    return Preprocess(
        size=(crop, crop),
        resize_to=resize_to,
        mode="crop",
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
