"""Frozen features: computed once, then read from the disk, keyed by the model, its weights and the images."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer.data.cache import cached_array, content_key
from transfer.data.loader import LabelledPixels
from transfer.device import training_device
from zoo.classifier import AUXILIARY, classifier, classifier_name, features
from zoo.folding import folded
from zoo.layout import layout_of
from zoo.preprocess import Preprocess
from zoo.progress import Progress

# Of the rule that makes features from pixels, as PIXELS_VERSION in transfer/data/loader.py; for changes in the models'
# own code, which weights and settings do not show.
FEATURES_VERSION = 1
KNOWN = ("zoo", "torch", "torchvision", "timm")  # packages whose code does not change between two versions
# Pixels in one batch. On a CPU the activations of 28 images of 96 px stay near its cache: EfficientNet-Lite0 takes
# 3.4 ms an image so, 4.5 in batches of 64 and 5.5 in batches of 128 (one core).
CPU_BATCH_PIXELS = 1 << 18
GPU_BATCH_PIXELS = 1 << 23
BATCHES = (8, 256)  # at least, at most


def frozen_features(
    model: nn.Module, data: LabelledPixels, preprocess: Preprocess, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """(N, F) inputs of the model's classifier, in eval mode, read-only; from the cache where it has them.

    They do not depend on the classifier, and neither does the key: two fits of one backbone share them, whatever their
    seeds and classes. Those of a user's own modules, whose code may have changed since, are not kept.
    """
    if data.pieces:
        return np.concatenate([frozen_features(model, each, preprocess, progress=progress) for each in data.pieces])
    shape = (len(data), classifier(model).weight.shape[1])
    if not all(type(module).__module__.split(".")[0] in KNOWN for module in model.modules()):
        return features_of(model, data.pixels, preprocess, progress=progress)

    def make() -> Iterator[NDArray[np.float32]]:
        return _blocks(model, data.pixels, preprocess, progress)

    return cached_array("features", _key(model, data, preprocess), shape=shape, dtype=np.float32, make=make)


def features_of(
    model: nn.Module,
    pixels: NDArray[np.uint8] | NDArray[np.float32],
    preprocess: Preprocess,
    *,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The same of (N, H, W, C) pixels in 0..255 that need no keeping, such as one augmented view of each image."""
    if not len(pixels):
        return np.zeros((0, classifier(model).weight.shape[1]), dtype=np.float32)
    return np.concatenate(list(_blocks(model, pixels, preprocess, progress)))


def _blocks(
    model: nn.Module, pixels: NDArray[Any], preprocess: Preprocess, progress: Progress | None
) -> Iterator[NDArray[np.float32]]:
    device = training_device()
    budget = CPU_BATCH_PIXELS if device.type == "cpu" else GPU_BATCH_PIXELS
    least, most = BATCHES
    size = min(max(budget // (pixels.shape[1] * pixels.shape[2]), least), most)

    def inputs(start: int, stop: int) -> Tensor:
        batch = torch.from_numpy(preprocess.normalize(pixels[start:stop])).to(device)
        return batch.contiguous(memory_format=torch.channels_last)

    network = copy.deepcopy(model).eval().to(device).to(memory_format=layout_of(model))
    if device.type == "cpu":
        network = folded(network, inputs(0, 2))
    for start in range(0, len(pixels), size):
        stop = min(start + size, len(pixels))
        with torch.inference_mode():
            block: NDArray[np.float32] = features(network, inputs(start, stop)).float().cpu().numpy()
        if progress is not None:
            progress("features", stop, len(pixels), "")
        yield block


def _key(model: nn.Module, data: LabelledPixels, preprocess: Preprocess) -> str:
    rule = f"{FEATURES_VERSION} {torch.__version__} {preprocess} {data.pixels.shape}"
    return content_key(rule, data.pixels_key(), describe_weights(model, (classifier_name(model), *AUXILIARY)))


def describe_weights(model: nn.Module, aside: tuple[str, ...] = ()) -> Iterator[str]:
    """A line for each module and tensor that answers can depend on: type, settings, shape, hash.

    Args:
        aside: names of modules that do not count.
    """

    def counts(name: str) -> bool:
        return not any(f"{name}.".startswith(f"{part}.") for part in aside)

    for name, module in model.named_modules():
        if counts(name):
            settings = {key: value for key, value in sorted(vars(module).items()) if _is_setting(key, value)}
            yield f"{name} {type(module).__module__}.{type(module).__qualname__} {settings}"
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if counts(name):
            values = tensor.detach().cpu().contiguous()
            digest = hashlib.sha256(values.view(-1).view(torch.uint8).numpy().data)
            yield f"{name} {values.dtype} {tuple(values.shape)} {digest.hexdigest()}"


def _is_setting(key: str, value: object) -> bool:
    """What a line can say the same way in every process: numbers, words, and lists of them."""
    if isinstance(value, list | tuple):
        return all(_is_setting(key, item) for item in value)
    return value is None or (isinstance(value, int | float | str) and key not in ("training", "num_classes"))
