"""Frozen features: computed once, then read from the disk, keyed by the model's weights and the exact pixels."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transfer.loader import LabelledPixels, Progress
from zoo.classifier import features
from zoo.preprocess import Preprocess

BATCH = 64


def cache_directory() -> Path:
    """$SLIMZOO_CACHE, else $XDG_CACHE_HOME/slimzoo, else ~/.cache/slimzoo."""
    if "SLIMZOO_CACHE" in os.environ:
        return Path(os.environ["SLIMZOO_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slimzoo"


def frozen_features(
    model: nn.Module, data: LabelledPixels, preprocess: Preprocess, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """(N, F) inputs of the model's classifier, in eval mode; from the cache where it has them.

    A cache that cannot be written is no error: the features are computed again next time.
    """
    path = cache_directory() / "features" / f"{_key(model, data, preprocess)}.npy"
    try:
        cached: NDArray[np.float32] = np.load(path, allow_pickle=False)
        if len(cached) == len(data):
            return cached
    except (OSError, ValueError, EOFError):
        pass  # absent, or cut short by a full disk
    computed = _compute(model, data, preprocess, progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_suffix(f".{os.getpid()}.tmp")
        with work.open("wb") as file:
            np.save(file, computed)
        os.replace(work, path)
    except OSError:
        pass
    return computed


def _compute(
    model: nn.Module, data: LabelledPixels, preprocess: Preprocess, progress: Progress | None
) -> NDArray[np.float32]:
    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(data), BATCH):
            batch = torch.from_numpy(preprocess.normalize(data.pixels[start : start + BATCH]))
            parts.append(features(model, batch.contiguous(memory_format=torch.channels_last)).numpy())
            if progress is not None:
                progress("features", min(start + BATCH, len(data)), len(data), "")
    model.train(was_training)
    return np.concatenate(parts)


def _key(model: nn.Module, data: LabelledPixels, preprocess: Preprocess) -> str:
    digest = hashlib.sha256(f"{type(model).__qualname__} {preprocess} {data.pixels.shape}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(data.pixels.tobytes())
    return digest.hexdigest()[:32]
