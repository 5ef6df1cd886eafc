"""BatchNorm recalibration: after a cut the running statistics are those of a network that no longer exists.

Li et al. 2020, EagleEye (arXiv 2007.02491), sec. 3.2: statistics are measured afresh before anything else is judged.
"""

from __future__ import annotations

import torch
from torch import nn

from transfer.loader import LabelledPixels, batches
from zoo.preprocess import Preprocess

IMAGES = 1024  # more change the estimate by less than its own noise


def recalibrate_(
    model: nn.Module, data: LabelledPixels, preprocess: Preprocess, *, batch: int = 64, seed: int = 0
) -> None:
    """Replace all BatchNorm statistics by plain averages over up to 1,024 training images; weights stay."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    with torch.no_grad():
        for indices in batches(len(data), batch, seed=seed, epoch=0)[: max(1, IMAGES // batch)]:
            model(torch.from_numpy(preprocess.normalize(data.pixels[indices])))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
