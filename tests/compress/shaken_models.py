"""Models as far from their initial values as training takes them, and a cut of everything that can be cut."""

import numpy as np
import torch
from torch import nn

from compress.dependency.group import Grouping, Indices
from zoo.create import create_model
from zoo.models.registry import model_entry


def shake_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms' scales, variances, LayerScale in 0.5 to 1.5, shifts and positions in -0.2 to 0.2, weights by He's rule."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            leaf = name.rpartition(".")[2]
            if not tensor.is_floating_point() or leaf in ("attn_mask",):
                continue
            if leaf in ("running_var", "gamma") or (leaf == "weight" and tensor.dim() == 1):
                tensor.copy_(torch.empty(tensor.shape).uniform_(0.5, 1.5, generator=generator))
            elif leaf == "weight":
                std = (2 / tensor[0].numel()) ** 0.5
                tensor.copy_(torch.empty(tensor.shape).normal_(0, std, generator=generator))
            else:
                tensor.copy_(torch.empty(tensor.shape).uniform_(-0.2, 0.2, generator=generator))
    return model


def tiny(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A family's smallest instance and the size of its input."""
    entry = model_entry(name)
    options = entry.tiny or {}
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    if entry.kind == "sequence":
        return shake_(model), entry.input_size
    side = options.get("image_size", min(entry.input_size[1], 64))
    return shake_(model), (entry.input_size[0], side, side)


def thinned(grouping: Grouping, share: float = 0.6, seed: int = 0) -> list[Indices]:
    """A random choice of about `share` of every group's channels, equally many of those that are tied."""
    rng = np.random.default_rng(seed)
    counts = [max(1, round(share * group.width)) for group in grouping.groups]
    return [np.sort(rng.permutation(g.width)[:n]) for g, n in zip(grouping.groups, counts, strict=True)]
