"""Criteria for single weights: functions from a model to one score for each weight, higher meaning more worth keeping.

One of your own is such a function, or a class with `on_batches(batches)`, which is given (inputs, labels) first. To
give it a name, add a line to WEIGHT_CRITERIA in settings.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.recovery.masks import sparse_layers
from transfer.training.cpu_operators import CpuOperators

WeightScores = dict[str, Tensor]  # layer -> the weight's shape, float32, at least 0, and 0 for a weight of 0
Criterion = Callable[[nn.Module], WeightScores]


@torch.no_grad()
def magnitude(model: nn.Module) -> WeightScores:
    """|w| (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    return {name: layer.weight.detach().abs() for name, layer in sparse_layers(model).items()}


@torch.no_grad()
def lamp(model: nn.Module) -> WeightScores:
    """w^2 over the sum of the squares that are not smaller, layer by layer (LAMP, Lee et al. 2021, arXiv 2010.07611).

    Eq. 4: ranked globally, it is the layerwise distortion of the weights' outputs that is least, and no layer is ever
    emptied, since its largest weight scores 1.
    """
    scores = {}
    for name, layer in sparse_layers(model).items():
        squares = layer.weight.detach().square().flatten()
        ordered, order = squares.sort(descending=True)
        left = ordered.double().cumsum(0)  # of itself and all that are larger
        score = torch.empty_like(squares)
        score[order] = (ordered / left.clamp(min=1e-30)).to(squares)
        scores[name] = score.view(layer.weight.shape)
    return scores


class WeightTaylor:
    """First-order estimate of what the loss does when one weight becomes zero, as a `Criterion`.

    Molchanov et al. 2019 (arXiv 1906.10771), eq. 8, for a single weight: (w dL/dw)^2, averaged over batches.

    Args:
        batches: (inputs (B, C, H, W), labels (B,)), kept and run at each call, in eval mode.
    """

    @classmethod
    def on_batches(cls, batches: Iterable[tuple[Tensor, Tensor]]) -> WeightTaylor:
        """Make the criterion for `sparsify`, which has images when it asks for scores."""
        return cls(batches)

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self._batches: Sequence[tuple[Tensor, Tensor]] = tuple(batches)

    def __call__(self, model: nn.Module) -> WeightScores:
        copied = copy.deepcopy(model).eval()
        device = next(copied.parameters()).device
        layers = sparse_layers(copied)
        scores = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
        with torch.enable_grad():
            for layer in layers.values():
                layer.weight.requires_grad_(True)
            for inputs, labels in self._batches:
                copied.zero_grad(set_to_none=True)
                with CpuOperators():
                    loss = F.cross_entropy(copied(inputs.to(device)), labels.to(device))
                loss.backward()  # type: ignore[no-untyped-call]
                for name, layer in layers.items():
                    assert layer.weight.grad is not None
                    scores[name] += (layer.weight.detach() * layer.weight.grad).square() / len(self._batches)
        return {name: score.detach() for name, score in scores.items()}
