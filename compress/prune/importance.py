"""Criteria: plain functions from a group to one score a channel, higher meaning more worth keeping."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.prune.groups import Group

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LAYERS = (nn.Conv2d, nn.Linear)

Importance = Callable[[nn.Module, Group], Tensor]  # (model, group) -> (width,)


def l2_norm(model: nn.Module, group: Group) -> Tensor:
    """Mean over the group's weights of the L2 norm of each channel's slice, divided by the group's mean (width,).

    Li et al. 2017 (arXiv 1608.08710) with the L2 norm, over coupled layers as in Fang et al. 2023, eq. 4. The division
    makes scores of different groups comparable, so that one ranking can serve the whole network.
    """
    total, layers = torch.zeros(group.width, dtype=torch.float64), 0
    for s in group.slices:
        module = model.get_submodule(s.module)
        if not isinstance(module, LAYERS):
            continue  # a norm's scale is as small as the next layer's weights are large: it says little alone
        weight = module.weight.detach().double().cpu()
        rows = weight.flatten(1) if s.axis == "out" else weight.transpose(0, 1).flatten(1)  # (channels, rest)
        squares = rows.square().sum(dim=1)[torch.from_numpy(s.channels)]
        norms = torch.zeros(group.width, dtype=torch.float64).index_add_(0, torch.from_numpy(s.roots), squares).sqrt()
        total += norms / norms.mean().clamp(min=1e-12)
        layers += 1
    return total / max(1, layers)


class Taylor:
    """First-order estimate of what the loss does when a channel is multiplied by zero, as an `Importance`.

    Molchanov et al. 2019 (arXiv 1906.10771), eq. 8: the squared product of a gate of 1 on the channel and the loss's
    gradient to it, averaged over batches. The gate's gradient is read off the parameters behind which it would stand,
    sum(w dL/dw): those of the channel's BatchNorms, or of the layers themselves where there are none. Coupled layers
    lose the channel together, so their gradients add up before the square.
    """

    def __init__(self, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Collect gradients in eval mode over (inputs (B, C, H, W), labels (B,)) batches; the model is left alone."""
        model = copy.deepcopy(model).eval()
        modules = {name: m for name, m in model.named_modules() if isinstance(m, NORMS + LAYERS)}
        gates: dict[str, list[Tensor]] = {name: [] for name in modules}
        for inputs, labels in batches:
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            for name, module in modules.items():
                gates[name].append(_gate_gradient(module))
        self.gates = {name: torch.stack(values) for name, values in gates.items()}  # (batches, channels)

    def __call__(self, model: nn.Module, group: Group) -> Tensor:
        """(width,) root mean square over batches."""
        members = [s for s in group.slices if s.axis == "out"]
        norms = [s for s in members if isinstance(model.get_submodule(s.module), NORMS)]
        total: Tensor | None = None
        for s in norms or members:
            gate = self.gates[s.module][:, torch.from_numpy(s.channels)]
            summed = torch.zeros(len(gate), group.width, dtype=torch.float64)
            summed.index_add_(1, torch.from_numpy(s.roots), gate)
            total = summed if total is None else total + summed
        assert total is not None
        return total.square().mean(dim=0).sqrt()


def _gate_gradient(module: nn.Module) -> Tensor:
    """(channels,) sum over a channel's weights and bias of value times gradient."""
    total = torch.zeros(len(module.weight), dtype=torch.float64)  # type: ignore[arg-type]
    for parameter in (module.weight, module.bias):
        if isinstance(parameter, nn.Parameter) and parameter.grad is not None:
            total += (
                (parameter * parameter.grad)
                .detach()
                .double()
                .flatten(1 if parameter.ndim > 1 else 0)
                .reshape(len(parameter), -1)
                .sum(dim=1)
            )
    return total
