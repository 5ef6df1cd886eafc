"""Models of upstream libraries as they are, keys unchanged, with their Preprocess.

"timm:NAME" or "timm:NAME.TAG" is timm's module, "torchvision:NAME" or "torchvision:NAME.TAG" torchvision's (its TAGs
are IMAGENET1K_V1 and the like). Importing this file imports neither.
"""

from __future__ import annotations

import functools
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zoo import download
from zoo.download import Progress
from zoo.errors import SlimzooError, UsageError, did_you_mean
from zoo.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn

SOURCES = ("timm", "torchvision")
SAFETENSORS = "model.safetensors"


def is_upstream(name: object) -> bool:
    """Whether `name` is "timm:NAME" or "torchvision:NAME", and not a model directory or a model of the zoo."""
    source, colon, _ = str(name).partition(":")
    return bool(colon) and source in SOURCES


def known_as(name: str) -> str:
    """The name in its own library: "timm:resnet50" is resnet50. Other names stay as they are."""
    return name.partition(":")[2] if is_upstream(name) else name


def create_model(
    name: str, *, pretrained: bool = False, num_classes: int | None = None, in_channels: int = 3, **options: Any
) -> nn.Module:
    """The module NAME of timm or torchvision, "timm:resnet50", "torchvision:resnet50.IMAGENET1K_V1".

    Args:
        pretrained: load the library's weights: from its cache if they are there, otherwise by download.
        num_classes: None keeps the model's own. Where it is not the weights' number, the classifier starts afresh.
        in_channels: torchvision's models take 3 alone.
        **options: the library's own arguments, such as `img_size` or `drop_path_rate` of timm.

    Raises:
        UsageError: an unknown source, name, tag or option, or weights that are neither cached nor to be reached.
        SlimzooError: a download failed, or a cached file is damaged.
    """
    build = _builder(name)
    return build(  # type: ignore[no-any-return]
        known_as(name), pretrained=pretrained, num_classes=num_classes, in_channels=in_channels, **options
    )


def _builder(name: str) -> Any:
    builders = {"timm": _create_timm, "torchvision": _create_torchvision}
    source = name.partition(":")[0]
    if source not in builders:
        raise UsageError(f"unknown source {source!r} in {name!r}: 'timm:NAME' and 'torchvision:NAME' are what there is")
    return builders[source]


def fetch(name: str, *, progress: Progress | None = None) -> None:
    """Have the pretrained weights of NAME in its library's cache: downloaded if they are not there.

    Raises:
        UsageError, SlimzooError: as `create_model`.
    """
    _builder(name)
    if name.startswith("timm:"):
        _timm_weights(known_as(name), progress)
    else:
        _torchvision_file(known_as(name), _torchvision_weights(known_as(name)), progress)


def recorded_preprocess(name: str) -> Preprocess:
    """What the weights of NAME were trained for, without building the model."""
    if name.startswith("timm:"):
        cfg = _timm_record(known_as(name)).to_dict()
        return _from_timm(cfg, cfg["input_size"])
    return _from_torchvision(_torchvision_weights(known_as(name)))


def input_size_of(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) that a model of timm's or torchvision's was built for."""
    weights = getattr(model, "torchvision_weights", None)
    if weights is not None:
        side = int(getattr(model, "image_size", None) or weights.transforms().crop_size[0])  # a ViT has an image_size
        return (3, side, side)
    cfg = _timm_cfg(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or cfg["input_size"][1:]
    return (_timm_channels(model), int(size[0]), int(size[1]))


def preprocess_of(model: nn.Module) -> Preprocess:
    """The evaluation preprocessing of the weights of a model of timm's or torchvision's, at the model's size.

    Raises:
        SlimzooError: the library's record says something that Preprocess cannot, such as another interpolation.
    """
    weights = getattr(model, "torchvision_weights", None)
    if weights is None:
        return _from_timm(_timm_cfg(model), input_size_of(model))
    preprocess = _from_torchvision(weights)
    side = input_size_of(model)[1]
    return preprocess if preprocess.size == (side, side) else preprocess.at(side)


def _check_reachable(name: str, address: str, *, size_bytes: float | None = None, forbidden: bool = False) -> None:
    """Refuse at once a download that is forbidden or that will not come, and say what there is without it."""
    from zoo.weights import offline_models

    forbidden = forbidden or download.is_offline()
    if not forbidden and download.reachable(address):
        return
    size = "" if size_bytes is None else f" ({download.megabytes(size_bytes)})"
    why = "downloads are forbidden" if forbidden else f"{urlsplit(address).netloc} cannot be reached"
    known = ", ".join(offline_models())
    raise UsageError(f"the weights of {name}{size} are not on this machine and {why}; pretrained offline: {known}")


# --- timm -------------------------------------------------------------------------------------------------------------


def _create_timm(
    name: str, *, pretrained: bool, num_classes: int | None, in_channels: int, **options: Any
) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise UsageError(
            f"timm has no model {name!r}: {did_you_mean(name, timm.list_models(), 'see timm.list_models()')}"
        )
    options = {"in_chans": in_channels, **options}
    if num_classes is not None:
        options["num_classes"] = num_classes
    if pretrained:
        options["pretrained_cfg_overlay"] = _timm_weights(name)
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UsageError(f"timm:{name}: {error}") from error
    if pretrained:
        model.pretrained_cfg.pop("file", None)  # type: ignore[union-attr,operator]  # a path of this machine only
    return model


def _timm_record(name: str) -> Any:
    import timm

    try:
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # an unknown tag
        raise UsageError(f"timm:{name}: {' '.join(str(error).split())}") from error
    if cfg is None or not cfg.has_weights:
        raise UsageError(f"timm has no pretrained weights for {name!r}")
    return cfg


def _timm_weights(name: str, progress: Progress | None = None) -> dict[str, str | bool]:
    """What to change in timm's record of the weights: the file; nothing if timm must find it in a way of its own."""
    import huggingface_hub

    cfg = _timm_record(name)
    path = None
    if cfg.hf_hub_id and str(cfg.custom_load) != "hf":
        repository, _, revision = cfg.hf_hub_id.partition("@")
        file, revision = cfg.hf_hub_filename or SAFETENSORS, revision or "main"
        path = hub_file(repository, file, revision=revision)
        if path is None:
            path = _from_hub(name, repository, file, revision)
        else:
            _verify_hub_file(path, "damaged; delete it and the file that it points to, and it is fetched again")
    else:
        _check_reachable(f"timm:{name}", cfg.url or huggingface_hub.constants.ENDPOINT)
    # custom loading is for the original format, not the hub's
    return {} if path is None else {"file": str(path), "custom_load": False}


def hub_file(repository: str, file: str, *, revision: str = "main") -> Path | None:
    """A file in huggingface_hub's cache, found by its layout alone: importing that library takes half a second."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    path = folder / "snapshots" / commit / file
    return path if path.is_file() else None


def hub_cache() -> Path:
    """Where huggingface_hub keeps its files, found without importing it."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(cache)).expanduser()


def _from_hub(name: str, repository: str, file: str, revision: str) -> Path | None:
    """Download by huggingface_hub, which resumes, caches and shows a bar; None if the hub has no file of that name."""
    import huggingface_hub
    from huggingface_hub import errors

    settings = huggingface_hub.constants
    _check_reachable(f"timm:{name}", settings.ENDPOINT, forbidden=settings.HF_HUB_OFFLINE)
    settings.HF_HUB_DISABLE_TELEMETRY = True  # it would ask for a list of programs, and tell which one this is
    url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
    try:
        download.announce(f"{repository}/{file}", huggingface_hub.get_hf_file_metadata(url).size)
        found = huggingface_hub.hf_hub_download(repository, file, revision=revision, cache_dir=hub_cache())
    except errors.RemoteEntryNotFoundError:
        return None
    except Exception as error:  # its own kinds and its HTTP library's
        line = str(error).strip().splitlines()[0]
        raise SlimzooError(f"timm:{name}: the download failed ({line}); the next attempt goes on from there") from error
    path = Path(found)
    try:
        _verify_hub_file(path, "the hub gave another file; it was removed")
    except SlimzooError:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise
    return path


def _verify_hub_file(path: Path, otherwise: str) -> None:
    """Compare with the SHA-256 that the hub stated: the name under which the cache keeps a large file."""
    stated = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", stated):
        download.verify(path, stated, otherwise=otherwise)


def _timm_cfg(model: nn.Module) -> dict[str, Any]:
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict):
        raise TypeError(f"{type(model).__name__} has no pretrained_cfg: a model of timm's or torchvision's is wanted")
    return cfg


def _timm_channels(model: nn.Module) -> int:
    """Channels that the first convolution takes; timm's record keeps those of the weights."""
    from torch import nn

    first = _timm_cfg(model).get("first_conv")
    first = first if isinstance(first, str) else (first or [None])[0]
    layer = dict(model.named_modules()).get(first or "")
    return int(layer.weight.shape[1]) if isinstance(layer, nn.Conv2d) else int(_timm_cfg(model)["input_size"][0])


def _from_timm(cfg: dict[str, Any], input_size: tuple[int, int, int]) -> Preprocess:
    """As `timm.data.transforms_imagenet_eval` reads timm's record."""
    channels, height, width = input_size
    mean, std = tuple(cfg["mean"]), tuple(cfg["std"])
    if cfg["interpolation"] not in ("bilinear", "bicubic"):
        raise SlimzooError(
            f"interpolation {cfg['interpolation']!r} of {cfg['architecture']}: bilinear or bicubic is wanted"
        )
    mode = {"center": "crop", "squash": "squash", "border": "pad"}.get(cfg["crop_mode"])
    if mode is None or (mode != "crop" and cfg["crop_pct"] != 1.0) or (mode == "crop" and height != width):
        raise SlimzooError(
            f"crop mode {cfg['crop_mode']!r} of {cfg['crop_pct']} to {height}x{width} of {cfg['architecture']}: "
            "wanted 'center' to a square, or 'squash' or 'border' of 1.0"
        )
    if channels == 1:  # grey is the mean of red, green and blue, and so are its statistics, nearly
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    red, green, blue = (round(255 * value) for value in cfg["mean"])
    return Preprocess(
        size=(height, width),
        resize_to=math.floor(height / cfg["crop_pct"]) if mode == "crop" else None,
        mode=mode,  # type: ignore[arg-type]
        interpolation=cfg["interpolation"],
        mean=mean,
        std=std,
        background=(red, green, blue) if mode == "pad" else (255, 255, 255),  # timm pads with the mean
    )


# --- torchvision ------------------------------------------------------------------------------------------------------


def _create_torchvision(
    name: str, *, pretrained: bool, num_classes: int | None, in_channels: int, **options: Any
) -> nn.Module:
    """The structure is the pretrained model's, whether or not the weights are loaded, so that a saved one loads."""
    weights = _torchvision_weights(name)
    if in_channels != 3:
        raise UsageError(
            f"torchvision:{name} takes 3 channels, not {in_channels}: torchvision has no argument for it, "
            "timm's models and the zoo's have in_channels"
        )
    recorded = len(weights.meta["categories"])
    wanted = recorded if num_classes is None else num_classes
    if pretrained and wanted == recorded:
        model = _build_torchvision(name, weights, options)
    else:
        model = _build_torchvision(name, None, {**_structure(name, weights), "num_classes": wanted, **options})
    if pretrained and wanted != recorded:  # all but the classifiers, whose shape is another
        own, found = model.state_dict(), _build_torchvision(name, weights, options).state_dict()
        state = {key: own[key] if own[key].shape != tensor.shape else tensor for key, tensor in found.items()}
        model.load_state_dict(state, strict=True)
    model.torchvision_weights = weights  # for `preprocess_of`; it holds no tensor
    return model


def _torchvision_weights(name: str) -> Any:
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


def _build_torchvision(name: str, weights: Any, options: dict[str, Any]) -> nn.Module:
    import torch
    from torchvision import models

    if weights is not None:
        _only_tensors(_torchvision_file(name, weights))
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


def _torchvision_file(name: str, weights: Any, progress: Progress | None = None) -> Path:
    """The file of the weights where torchvision looks for it, its hash checked."""
    path = torch_checkpoints() / str(weights.url).rpartition("/")[2]
    digest = path.stem.rpartition("-")[2]  # torchvision's file names end with the first digits of the SHA-256
    if path.exists():
        download.verify(path, digest)
        return path
    _check_reachable(f"torchvision:{name}", weights.url, size_bytes=weights.meta["_file_size"] * 2**20)
    download.download(weights.url, path, sha256=digest, progress=progress)
    return path


def torch_checkpoints() -> Path:
    """Where torchvision keeps its files, found without importing torch."""
    hub = sys.modules.get("torch.hub")
    if hub is not None:
        return Path(hub.get_dir(), "checkpoints")
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _only_tensors(path: Path) -> None:
    """torchvision reads its files as any pickle; here they are read once before, as tensors and nothing else."""
    import pickle

    import torch

    try:
        torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        line = str(error).strip().splitlines()[0]
        raise SlimzooError(f"{path} cannot be read as tensors alone: {line}") from error


def _from_torchvision(weights: Any) -> Preprocess:
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
