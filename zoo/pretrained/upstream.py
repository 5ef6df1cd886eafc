"""Models of upstream libraries as they are, keys unchanged, with their Preprocess.

"timm:NAME" or "timm:NAME.TAG" is timm's module, "torchvision:NAME" or "torchvision:NAME.TAG" torchvision's (its TAGs
are IMAGENET1K_V1 and the like). Importing this file imports neither.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError
from zoo.preprocess import Preprocess
from zoo.pretrained import upstream_timm, upstream_torchvision
from zoo.pretrained.origins import Upstream
from zoo.pretrained.weights import Weights, torchvision_record
from zoo.progress import Progress

if TYPE_CHECKING:
    from torch import nn

SOURCES = ("timm", "torchvision")
PLACES = ("local-dir", "hf-hub")  # timm's words for where a directory of its own is


def is_upstream(name: object) -> bool:
    """Whether `name` is "timm:NAME" or "torchvision:NAME", and not a model directory or a model of the zoo."""
    source, colon, _ = str(name).partition(":")
    return bool(colon) and source in SOURCES and place_of(name) is None


def place_of(name: object) -> tuple[str, str] | None:
    """("local-dir", "PATH") of "timm:local-dir:PATH", ("hf-hub", "OWNER/NAME") of "timm:hf-hub:OWNER/NAME"; these mean
    directories, see `zoo.files.elsewhere.directory_of`. None of every other name.
    """
    source, _, rest = str(name).partition(":")
    kind, colon, where = rest.partition(":")
    return (kind, where) if source == "timm" and colon and kind in PLACES else None


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
    builders = {"timm": upstream_timm.create_model, "torchvision": upstream_torchvision.create_model}
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
        upstream_timm.weights_of(known_as(name), progress)
    else:
        upstream_torchvision.file_of(known_as(name), upstream_torchvision.weights_of(known_as(name)), progress)


def recorded_preprocess(name: str) -> Preprocess:
    """What the weights of NAME were trained for, without building the model."""
    if name.startswith("timm:"):
        cfg = upstream_timm.record_of(known_as(name)).to_dict()
        return upstream_timm.preprocess_from(cfg, cfg["input_size"])
    return upstream_torchvision.preprocess_from(upstream_torchvision.weights_of(known_as(name)))


def input_size_of(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) that a model of timm's or torchvision's was built for."""
    weights = getattr(model, "torchvision_weights", None)
    if weights is not None:
        side = int(getattr(model, "image_size", None) or weights.transforms().crop_size[0])  # a ViT has an image_size
        return (3, side, side)
    cfg = upstream_timm.cfg_of(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or cfg["input_size"][1:]
    return (int(cfg["input_size"][0]), int(size[0]), int(size[1]))


def preprocess_of(model: nn.Module) -> Preprocess:
    """The evaluation preprocessing of the weights of a model of timm's or torchvision's, at the model's size.

    Raises:
        SlimzooError: the library's record says something that Preprocess cannot, such as another interpolation.
    """
    weights = getattr(model, "torchvision_weights", None)
    if weights is None:
        return upstream_timm.preprocess_from(upstream_timm.cfg_of(model), input_size_of(model))
    preprocess = upstream_torchvision.preprocess_from(weights)
    side = input_size_of(model)[1]
    return preprocess if preprocess.size == (side, side) else preprocess.at(side)


def upstream_weights(name: str) -> Weights | None:
    """What "timm:NAME" or "torchvision:NAME" loads, from its library's own record; None where it has no weights."""
    known = known_as(name)
    if name.startswith("timm:"):
        cfg = upstream_timm.find_record(known)
        if cfg is None:
            return None
        full = f"timm:{cfg.architecture}.{cfg.tag}" if cfg.tag else f"timm:{cfg.architecture}"
        return Weights(
            architecture=name,
            source=full,
            origin=Upstream(name=full, file=cfg.hf_hub_id or "", sha256=None),
            licence=cfg.license or "not stated",
            num_classes=cfg.num_classes,
            labels="imagenet-1k" if cfg.num_classes == 1000 and "in1k" in (cfg.tag or "") else None,
            metrics={},
            size_bytes=None,
        )
    found = upstream_torchvision.weights_of(known)
    file = found.url.rpartition("/")[2]
    base = known.partition(".")[0]
    row = (file, found.meta["_file_size"], found.meta["_metrics"]["ImageNet-1K"]["acc@1"])
    record = torchvision_record(base, *row, tag=found.name)
    return replace(
        record,
        architecture=name,
        origin=Upstream(name=f"torchvision:{base}.{found.name}", file=file, sha256=record.sha256),
        licence=found.meta.get("license", record.licence),
        labels=tuple(found.meta["categories"]),
    )
