"""torch-pruning's cut of a network, and plain fine-tuning after it: the peer of `prune`.

Its BasePruner over all layers at once (global), widths in multiples of 8 and at least a tenth, in small steps until the
MACs are met, as its own benchmarks do (one large step empties layers, which it then leaves whole).
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import torch
from torch import nn

from compress.recovery.gradient_batches import gradient_batches
from transfer.data.parts import Pixels
from transfer.training.recipe import Recipe
from zoo.classifier import classifier
from zoo.cost import count_macs
from zoo.files.model_directory import LoadedModel
from zoo.models.tapped import Tapped

CUTS = 200  # in which it would take all channels


def plain_fine_tuning(recovery: Recipe) -> Recipe:
    """On the labels, by the defaults of `Recipe`, as long and as fast as our own recovery."""
    return replace(recovery, label_smoothing=0.1, weight_decay=0.05, warmup=0.25)


def cut_by_torch_pruning(criterion: str, loaded: LoadedModel, pixels: Pixels, share: float, seed: int) -> nn.Module:
    """Step by step, until the MACs are at most the share."""
    import torch_pruning

    size = loaded.config.input_size
    model = traceable(loaded)
    whole = count_macs(model, size)
    importance = {
        "l2": torch_pruning.importance.GroupMagnitudeImportance(p=2),
        "taylor": torch_pruning.importance.GroupTaylorImportance(),
    }[criterion]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.BasePruner(
            model,
            (torch.zeros(1, *size),),
            importance=importance,
            global_pruning=True,
            pruning_ratio=1.0,
            max_pruning_ratio=0.9,
            iterative_steps=CUTS,
            round_to=8,
            ignored_layers=[classifier(model)],
        )
        if criterion == "taylor":
            for inputs, labels in gradient_batches(pixels.train, loaded.config.preprocess, seed):
                nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        for _ in range(CUTS):
            pruner.step()  # which cuts the gradients too
            if count_macs(model, size) <= share * whole:
                model.zero_grad(set_to_none=True)
                return model.eval()
    raise RuntimeError(f"torch-pruning does not get to {share:.0%} of the MACs")


def traceable(loaded: LoadedModel) -> nn.Module:
    """A copy of the network as torch-pruning follows it: it takes the flattening before a concatenation for one of the
    classifier's width."""
    model = copy.deepcopy(loaded.model).eval()
    if isinstance(model, Tapped):
        example = torch.randn(2, *loaded.config.input_size)
        before = model(example)
        model.body.global_pool, model.body.flatten = nn.Identity(), _Mean()
        torch.testing.assert_close(model(example), before, rtol=1e-4, atol=1e-4)
    return model


class _Mean(nn.Module):
    """(B, C, H, W) to (B, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))
