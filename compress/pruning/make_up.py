"""What is left of a network is fitted to what went: its layers, and, where its images are smaller, its classifier."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.pruning.input_size import FIT_IMAGES, fit_classifier_, resized
from compress.pruning.reconstruct import reconstruct_
from compress.pruning.structured import Pruned
from compress.sparsity.lineage import is_sparse
from transfer.data.augment import NONE, Augment
from transfer.data.loader import LabelledPixels, batches
from transfer.evaluation.measure import ready
from zoo.files.model_directory import ModelConfig
from zoo.files.predictor import TorchPredictor
from zoo.layout import layout_of


class MakeUp:
    """
    Args:
        own: of the uncut network.
        train: the images to fit to, at its size.
        views: what makes views of them where there are few.
    """

    def __init__(self, own: ModelConfig, train: LabelledPixels, views: Augment, *, seed: int = 0) -> None:
        self._own, self._whole, self._views, self._seed = own.preprocess, train, views, seed
        self._fits = not is_sparse(own.lineage)  # zeros would not stay zeros
        self._parts = {own.preprocess.size: train}  # by their size
        self._answered: tuple[nn.Module, Tensor] | None = None

    def __call__(self, pruned: Pruned, uncut: nn.Module, config: ModelConfig, *, views: bool = True) -> None:
        """
        Args:
            config: of the pruned network, whose images may be smaller.
            views: whether few images are looked at in several ways, which takes as many times as long.
        """
        preprocess = config.preprocess
        if preprocess.size not in self._parts:
            self._parts[preprocess.size] = resized(self._whole, preprocess)
        train = self._parts[preprocess.size]
        reconstruct_(
            pruned.model,
            uncut,
            pruned.cuts,
            train,
            preprocess,
            augment=self._views if views else NONE,
            weights=self._fits,
            seed=self._seed,
        )
        if not self._fits or train is self._whole:
            return
        some = np.sort(batches(len(train), FIT_IMAGES, seed=self._seed, epoch=0)[0])
        inputs = torch.from_numpy(preprocess.normalize(np.array(train.pixels[some])))
        inputs = inputs.contiguous(memory_format=layout_of(uncut))
        fit_classifier_(pruned.model, inputs, self._answers(uncut, some))

    def _answers(self, uncut: nn.Module, some: NDArray[np.int64]) -> Tensor:
        """Of the uncut network to these images, at its own size; the same ones are asked for at every other."""
        if self._answered is None or self._answered[0] is not uncut:
            logits = TorchPredictor(ready(uncut, self._own), self._own, None).logits(self._whole.pixels[some])
            self._answered = uncut, torch.from_numpy(logits)
        return self._answered[1]
