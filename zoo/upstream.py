"""Models of upstream libraries as they are: "timm:NAME" is timm's own module, keys unchanged, with its Preprocess."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from typing import Any

from torch import nn

from zoo.errors import SlimzooError, UsageError, did_you_mean
from zoo.preprocess import Preprocess


def create_model(
    name: str, *, pretrained: bool = False, num_classes: int | None = None, in_channels: int = 3, **options: Any
) -> nn.Module:
    """timm's model NAME, "timm:resnet50" or with a tag of its weights "timm:resnet50.a1_in1k".

    Args:
        pretrained: load timm's weights: from the Hugging Face cache if they are there, otherwise by download.
        num_classes: None keeps the model's own.
        **options: timm's own arguments, such as `img_size` or `drop_path_rate`.

    Raises:
        UsageError: an unknown source, name, tag or option, or weights that are neither cached nor to be reached.
    """
    source, _, known_as = name.partition(":")
    if source != "timm":
        raise UsageError(f"unknown source {source!r} in {name!r}: 'timm:NAME' is the one there is")
    import timm

    if not timm.is_model(known_as):
        raise UsageError(
            f"timm has no model {known_as!r}: {did_you_mean(known_as, timm.list_models(), 'see timm.list_models()')}"
        )
    options = {"in_chans": in_channels, **options}
    if num_classes is not None:
        options["num_classes"] = num_classes
    if pretrained:
        options["pretrained_cfg_overlay"] = _weights_file(known_as)
    try:
        model: nn.Module = timm.create_model(known_as, pretrained=pretrained, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UsageError(f"timm:{known_as}: {error}") from error
    if pretrained:
        model.pretrained_cfg.pop("file", None)  # type: ignore[union-attr,operator]  # a path of this machine only
    return model


def _weights_file(name: str) -> dict[str, str | bool]:
    """What to change in timm's record of the weights: the file if it is cached, nothing if it can be downloaded."""
    import huggingface_hub
    import timm

    try:
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # an unknown tag
        raise UsageError(f"timm:{name}: {' '.join(str(error).split())}") from error
    if cfg is None or not cfg.has_weights:
        raise UsageError(f"timm has no pretrained weights for {name!r}")
    if cfg.hf_hub_id and str(cfg.custom_load) != "hf":
        path = huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")
        if isinstance(path, str):
            return {"file": path, "custom_load": False}  # custom loading is for the original format, not the hub's
    if not _reachable(huggingface_hub.constants.ENDPOINT):
        from zoo.weights import WEIGHTS

        raise UsageError(
            f"the weights of timm:{name} are not on this machine and {huggingface_hub.constants.ENDPOINT} cannot be "
            f"reached; pretrained offline: {', '.join(sorted(WEIGHTS))}"
        )
    return {}


def _reachable(address: str) -> bool:
    """One request, so that a machine with no network hears so at once and not after the hub's retries."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


def input_size_of(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) that a timm model was built for."""
    cfg = _cfg(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or cfg["input_size"][1:]
    return (_in_channels(model), int(size[0]), int(size[1]))


def preprocess_of(model: nn.Module) -> Preprocess:
    """The evaluation preprocessing of a timm model's weights (`timm.data.transforms_imagenet_eval`).

    Raises:
        SlimzooError: timm's record says something that Preprocess cannot: another interpolation, a crop after a squash.
    """
    cfg = _cfg(model)
    channels, height, width = input_size_of(model)
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


def _cfg(model: nn.Module) -> dict[str, Any]:
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict):
        raise TypeError(f"{type(model).__name__} has no pretrained_cfg: a model of timm's is wanted")
    return cfg


def _in_channels(model: nn.Module) -> int:
    """Channels that the first convolution takes; timm's record keeps those of the weights."""
    first = _cfg(model).get("first_conv")
    first = first if isinstance(first, str) else (first or [None])[0]
    layer = dict(model.named_modules()).get(first or "")
    return int(layer.weight.shape[1]) if isinstance(layer, nn.Conv2d) else int(_cfg(model)["input_size"][0])
