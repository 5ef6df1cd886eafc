"""timm's side of upstream.py: its modules, its weights from the hub, its record of the preprocessing."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zoo.errors import SlimzooError, UsageError, did_you_mean, first_line
from zoo.preprocess import Preprocess
from zoo.pretrained import download
from zoo.pretrained.library_caches import SAFETENSORS, hub_cache, hub_file
from zoo.progress import Progress

if TYPE_CHECKING:
    from torch import nn


def create_model(
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
        options["pretrained_cfg_overlay"] = weights_of(name)
    if "." in name:
        find_record(name)  # an unknown tag
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UsageError(f"timm:{name}: {error}") from error
    cfg = cfg_of(model)
    cfg["input_size"] = (in_channels, *cfg["input_size"][1:])  # timm's record keeps the channels of the weights
    if pretrained:
        model.pretrained_cfg.pop("file", None)  # type: ignore[union-attr,operator]  # a path of this machine only
    return model


def record_of(name: str) -> Any:
    """timm's record of a model's weights.

    Raises:
        UsageError: it has none, or none of that tag.
    """
    cfg = find_record(name)
    if cfg is None:
        raise UsageError(f"timm has no pretrained weights for {name!r}")
    return cfg


def find_record(name: str) -> Any | None:
    """timm's record of a model's weights; None if it has none."""
    import timm

    try:
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:  # an unknown tag
        raise UsageError(f"timm:{name}: {' '.join(str(error).split())}") from error
    return cfg if cfg is not None and cfg.has_weights else None


def default_record(name: str) -> dict[str, Any]:
    """timm's record of an architecture, with or without weights; empty where it has none."""
    import timm

    cfg: Any = timm.get_pretrained_cfg(name.partition(".")[0])
    return {} if cfg is None else dict(cfg.to_dict())


def weights_of(name: str, progress: Progress | None = None) -> dict[str, str | bool]:
    """What to change in timm's record of the weights: the file; nothing if timm must find it in a way of its own."""
    import huggingface_hub

    cfg = record_of(name)
    path = None
    if cfg.hf_hub_id and str(cfg.custom_load) != "hf":
        repository, _, revision = cfg.hf_hub_id.partition("@")
        file, revision = cfg.hf_hub_filename or SAFETENSORS, revision or "main"
        path = hub_file(repository, file, revision=revision)
        if path is None:
            path = _from_hub(name, repository, file, revision)
        else:
            verify_hub_file(path, "damaged; delete it and the file that it points to, and it is fetched again")
    else:
        download.check_reachable(f"timm:{name}", cfg.url or huggingface_hub.constants.ENDPOINT)
    # custom loading is for the original format, not the hub's
    return {} if path is None else {"file": str(path), "custom_load": False}


def fetch_repository(what: str, repository: str, revision: str, all_of: Sequence[str], one_of: Sequence[str]) -> Path:
    """The folder of a repository of the hub's, with all of some files and the first of others that it has, downloaded.

    Raises:
        UsageError: downloads are forbidden, or the hub cannot be reached.
        SlimzooError: the repository has no such files, or a download failed.
    """
    import huggingface_hub
    from huggingface_hub import constants as settings
    from huggingface_hub import errors

    if settings.HF_HUB_OFFLINE or download.is_offline() or not download.reachable(settings.ENDPOINT):
        offline = settings.HF_HUB_OFFLINE or download.is_offline()
        why = download.FORBIDDEN if offline else f"{urlsplit(settings.ENDPOINT).netloc} cannot be reached"
        raise UsageError(
            f"{what} is not in the hub's cache ({hub_cache()}) and {why}: fetch it where there is a network, or copy "
            "its directory here and name it with timm:local-dir:PATH"
        )
    settings.HF_HUB_DISABLE_TELEMETRY = True
    try:
        for file in all_of:
            huggingface_hub.hf_hub_download(repository, file, revision=revision, cache_dir=hub_cache())
        for file in one_of:
            with contextlib.suppress(errors.RemoteEntryNotFoundError):
                url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
                download.announce(f"{repository}/{file}", huggingface_hub.get_hf_file_metadata(url).size)
                found = huggingface_hub.hf_hub_download(repository, file, revision=revision, cache_dir=hub_cache())
                return Path(found).parent
    except Exception as error:  # its own kinds and its HTTP library's
        raise SlimzooError(f"{what}: the download failed ({first_line(error)})") from error
    raise SlimzooError(f"{what} has none of {', '.join(one_of)}: wanted a model that timm saved")


def _from_hub(name: str, repository: str, file: str, revision: str) -> Path | None:
    """Download by huggingface_hub, which resumes, caches and shows a bar; None if the hub has no file of that name."""
    import huggingface_hub
    from huggingface_hub import errors

    settings = huggingface_hub.constants
    download.check_reachable(f"timm:{name}", settings.ENDPOINT, forbidden=settings.HF_HUB_OFFLINE)
    settings.HF_HUB_DISABLE_TELEMETRY = True  # it would ask for a list of programs, and tell which one this is
    url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
    try:
        download.announce(f"{repository}/{file}", huggingface_hub.get_hf_file_metadata(url).size)
        found = huggingface_hub.hf_hub_download(repository, file, revision=revision, cache_dir=hub_cache())
    except errors.RemoteEntryNotFoundError:
        return None
    except Exception as error:  # its own kinds and its HTTP library's
        line = first_line(error)
        raise SlimzooError(f"timm:{name}: the download failed ({line}); the next attempt goes on from there") from error
    path = Path(found)
    try:
        verify_hub_file(path, "the hub gave another file; it was removed")
    except SlimzooError:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise
    return path


def verify_hub_file(path: Path, otherwise: str) -> None:
    """Compare with the SHA-256 that the hub stated: the name under which the cache keeps a large file."""
    stated = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", stated):
        download.verify(path, stated, otherwise=otherwise)


def cfg_of(model: nn.Module) -> dict[str, Any]:
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict):
        raise TypeError(f"{type(model).__name__} has no pretrained_cfg: a model of timm's or torchvision's is wanted")
    return cfg


def preprocess_from(cfg: dict[str, Any], input_size: tuple[int, int, int]) -> Preprocess:
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
    red, green, blue = (round(255 * value) for value in (*cfg["mean"], *cfg["mean"] * 2)[:3])  # one value for grey
    return Preprocess(
        size=(height, width),
        resize_to=math.floor(height / cfg["crop_pct"]) if mode == "crop" else None,
        mode=mode,  # type: ignore[arg-type]
        interpolation=cfg["interpolation"],
        mean=mean,
        std=std,
        background=(red, green, blue) if mode == "pad" else (255, 255, 255),  # timm pads with the mean
    )
