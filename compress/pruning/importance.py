"""Criteria: functions from a model and a group to one score for each channel, higher meaning more worth keeping.

A criterion of your own is such a function, or a class with `prepared(scene)`, which is given the network, the images
and the seed before the scores are asked for. `needs_images = True` refuses to work without images; `comparable = True`
says that scores of different layers can be compared, as estimates of the loss can, and `power` how (see
`allocate_by_loss`). To give it a name, add a line to CRITERIA in settings.py.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.dependency.group import Group, Slice
from compress.pruning.scene import Scene
from compress.recovery.gradient_batches import gradient_batches
from transfer.training.cpu_operators import CpuOperators

NORMS = (nn.modules.batchnorm._BatchNorm,)
LAYERS = (nn.modules.conv._ConvNd, nn.Linear)

Importance = Callable[[nn.Module, Group], Tensor]  # (model, group) -> (width,)


def l2_norm(model: nn.Module, group: Group) -> Tensor:
    """Mean over the group's weights of the L2 norm of each channel's slice, divided by the tensor's mean norm (width,).

    Li et al. 2017 (arXiv 1608.08710) with the L2 norm, over coupled layers as in Fang et al. 2023, eq. 4. The division
    makes scores of different groups comparable, so that one ranking can serve the whole network.
    """
    return _mean_norm(model, group, 2)


def l1_norm(model: nn.Module, group: Group) -> Tensor:
    """The same with the L1 norm, as in Li et al. 2017, sec. 3.1 (width,)."""
    return _mean_norm(model, group, 1)


def _mean_norm(model: nn.Module, group: Group, power: Literal[1, 2]) -> Tensor:
    total, weights = np.zeros(group.width), 0
    for s, weight in _weights(model, group):
        rest = [d for d in range(weight.dim()) if d != s.dim]
        powers = weight.square() if power == 2 else weight.abs()
        each = powers.sum(dim=rest).cpu().numpy()  # (indices,)
        norms = np.bincount(s.roots, each, group.width) ** (1 / power)  # in float64
        total += norms / max(norms.mean(), 1e-12)
        weights += 1
    return torch.from_numpy(total / max(1, weights))


def _weights(model: nn.Module, group: Group) -> Iterator[tuple[Slice, Tensor]]:
    """The group's slices of convolutions' and linear layers' weights, (O, I, ...), of the slice alone.

    A norm's scale is left out: it is as small as the next layer's weights are large and says little alone.
    """
    for s in group.slices:
        layer = model.get_submodule(s.module) if s.tensor == "weight" else None
        if isinstance(layer, LAYERS):
            weight = layer.weight.detach()
            if len(s.channels) < weight.shape[s.dim] or (np.diff(s.channels) != 1).any():
                weight = weight.index_select(s.dim, torch.from_numpy(s.channels).to(weight.device))
            yield s, weight


def _by_channel(values: Tensor, s: Slice, width: int) -> Tensor:
    """(indices of the slice,) -> (width,), summed over the indices of each channel."""
    return torch.zeros(width, dtype=torch.float64).index_add_(0, torch.from_numpy(s.roots), values)


def bn_scale(model: nn.Module, group: Group) -> Tensor:
    """Mean over the group's BatchNorms of |gamma| (Liu et al. 2017, Network Slimming, arXiv 1708.06519) (width,).

    Where a group has none, its L2 norms, whose mean is 1, times the mean |gamma| of the network.
    """
    total, norms = torch.zeros(group.width, dtype=torch.float64), 0
    for s in group.slices:
        layer = model.get_submodule(s.module)
        if isinstance(layer, NORMS) and s.tensor == "weight":
            scale = layer.weight.detach().double().abs().cpu()[torch.from_numpy(s.channels)]
            total += _by_channel(scale, s, group.width)
            norms += 1
    if norms:
        return total / norms
    scales = [m.weight.detach().double().abs().cpu() for m in model.modules() if isinstance(m, NORMS) and m.affine]
    return l2_norm(model, group) * (torch.cat(scales).mean() if scales else 1.0)


class Random:
    """Scores drawn evenly from [0, 1), as an `Importance`: what any criterion has to beat.

    They depend on the seed and the group's name alone.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @classmethod
    def prepared(cls, scene: Scene) -> Random:
        return cls(scene.seed)

    def __call__(self, model: nn.Module, group: Group) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {group.name}".encode()))
        return torch.rand(group.width, dtype=torch.float64, generator=generator)


class Taylor:
    """First-order estimate of what the loss does when a channel is multiplied by zero, as an `Importance`.

    Molchanov et al. 2019 (arXiv 1906.10771), eq. 8: the squared product of a gate of 1 on the channel and the loss's
    gradient to it, averaged over batches. The gate's gradient is read off the parameters behind which it would stand,
    sum(w dL/dw): those of the channel's BatchNorms, or of the layers themselves where there are none. Coupled layers
    lose the channel together, so their gradients add up before the square.
    """

    needs_images = comparable = True

    @classmethod
    def prepared(cls, scene: Scene) -> Taylor:
        assert scene.pixels is not None
        return cls(scene.network, gradient_batches(scene.pixels.train, scene.preprocess, scene.seed))

    def __init__(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Collect gradients in eval mode over (inputs (B, C, H, W), labels (B,)) batches; the model is left alone."""
        model = copy.deepcopy(model).eval()
        self.gates = Gates()
        for inputs, labels in batches:
            model.zero_grad(set_to_none=True)
            with CpuOperators():
                loss = F.cross_entropy(model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.gates.note(model)

    def __call__(self, model: nn.Module, group: Group) -> Tensor:
        """(width,) root mean square over batches."""
        return self.gates.of(model, group).square().mean(dim=0).sqrt()


class Gates:
    """What the gradients of batches say of a gate of 1 that stood behind each channel."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], list[Tensor]] = {}  # by name and dimension of a parameter: (indices,) a batch

    def note(self, model: nn.Module) -> None:
        """Read the gradients of one batch off the model's parameters."""
        for name, parameter in model.named_parameters():
            for dim in range(min(2, parameter.dim())):
                self._seen.setdefault((name, dim), []).append(_gate_gradient(parameter, dim))

    def of(self, model: nn.Module, group: Group) -> Tensor:
        """(batches, width) gradients of the gates of a group's channels, which go together in all coupled layers."""
        total: Tensor | None = None
        for s in _gated(model, group):
            gate = torch.stack(self._seen[s.name, s.dim])[:, torch.from_numpy(s.channels)]
            summed = torch.zeros(len(gate), group.width, dtype=torch.float64)
            summed.index_add_(1, torch.from_numpy(s.roots), gate)
            total = summed if total is None else total + summed
        assert total is not None
        return total


def _gated(model: nn.Module, group: Group) -> list[Slice]:
    """The slices behind which a gate would stand: scale and shift of norms, else rows and biases of layers."""
    own = [s for s in group.slices if isinstance(getattr(model.get_submodule(s.module), s.tensor), nn.Parameter)]
    norms = [s for s in own if isinstance(model.get_submodule(s.module), NORMS)]
    rows = [s for s in own if s.axis == "out" and isinstance(model.get_submodule(s.module), LAYERS)]
    return norms or rows or [s for s in own if s.dim < 2]


def _gate_gradient(parameter: Tensor, dim: int) -> Tensor:
    """(indices along `dim`,) sum of value times gradient."""
    if parameter.grad is None:
        return torch.zeros(parameter.shape[dim], dtype=torch.float64)
    product = (parameter * parameter.grad).detach().double()
    return product.sum(dim=[d for d in range(product.dim()) if d != dim]) if product.dim() > 1 else product
