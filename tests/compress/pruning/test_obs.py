"""Optimal Brain Surgeon against least squares solved again for each channel, and against the logits themselves."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from shaken_models import tiny
from torch import nn

from compress.dependency.groups import find_groups
from compress.pruning import obs
from compress.pruning.allocate import allocate_by_importance
from compress.pruning.obs import OptimalBrainSurgeon
from compress.pruning.structured import prune_channels


class Chain(nn.Module):
    """Two convolutions, a flattening and two linear layers."""

    def __init__(self, kernel: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 8, kernel, bias=bias)
        self.third = nn.Linear(8 * (6 - kernel + 1) ** 2, 10)
        self.classifier = nn.Linear(10, 4)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.classifier(self.third(x.flatten(1)).relu())


def looked_at(model, images=64, size=(3, 6, 6)):
    torch.manual_seed(1)
    x = torch.randn(images, *size)
    grouping = find_groups(model, torch.empty(1, *size, device="meta"))
    return x, grouping, OptimalBrainSurgeon(model, [(part, torch.zeros(len(part))) for part in x.split(16)])


@pytest.mark.parametrize(("kernel", "bias"), [(1, False), (3, True)])
def test_a_channel_costs_what_least_squares_cannot_make_up_for(kernel, bias, monkeypatch):
    """One channel at a time: the weighted error of the next layer, fitted again without each set of channels."""
    monkeypatch.setattr(obs, "SHRINKAGE", 0.0)
    torch.manual_seed(0)
    model = Chain(kernel, bias).eval()
    _, grouping, surgeon = looked_at(model)
    group = next(group for group in grouping.groups if group.name == "first")
    scores = surgeon(model, group).numpy()
    seen = surgeon.layers["second"]
    moments = seen.moments(centred=bias).numpy()
    weight = model.second.weight.detach().double().flatten(1).numpy()
    sensitivity, each, gone = seen.sensitivity.numpy(), kernel**2, []

    def error(without):
        """Of the best weights on the other columns, for outputs weight @ x with x of these moments."""
        left = np.array([c for c in range(weight.shape[1]) if c // each not in without], dtype=int)
        best = np.linalg.solve(moments[np.ix_(left, left)], moments[left] @ weight.T).T if len(left) else 0
        change = weight.copy()
        if len(left):
            change[:, left] -= best
        return float((sensitivity * np.einsum("oi,ij,oj->o", change, moments, change)).sum())

    for channel in np.argsort(scores)[:6]:
        costs = {other: error({*gone, other}) - error(gone) for other in range(12) if other not in gone}
        assert costs[channel] == pytest.approx(min(costs.values()), rel=1e-6)
        assert scores[channel] == pytest.approx(max([costs[channel], *(scores[g] for g in gone)]), rel=1e-6)
        gone.append(int(channel))


def test_the_sensitivity_is_that_of_the_logits():
    """The squared change of centred logits by a small change of an output, by many random signs."""
    torch.manual_seed(0)
    model = Chain().eval()
    x, _, surgeon = looked_at(model, images=2048)
    jacobian = torch.zeros(8, dtype=torch.float64)
    for image in x[:256]:
        hidden = model.first(image[None]).relu()

        def behind(values):
            logits = model.classifier(model.third(values.relu().flatten(1)).relu())
            return (logits - logits.mean(1, keepdim=True))[0]

        found = torch.autograd.functional.jacobian(behind, model.second(hidden))[:, 0].double()  # (K, O, H, W)
        jacobian += found.square().sum(dim=(0, 2, 3)) / found.shape[0] / 256
    assert surgeon.layers["second"].sensitivity == pytest.approx(jacobian, rel=0.15)


def test_a_copy_of_a_channel_costs_nothing(monkeypatch):
    """What others say as well is made up for, however large it is; by weights alone it would stay."""
    monkeypatch.setattr(obs, "SHRINKAGE", 0.0)
    torch.manual_seed(0)
    model = Chain().eval()
    with torch.no_grad():
        model.first.weight[3], model.first.bias[3] = 2 * model.first.weight[7], 2 * model.first.bias[7]
    _, grouping, surgeon = looked_at(model, images=256)
    scores = surgeon(model, next(group for group in grouping.groups if group.name == "first"))
    assert int(scores.argmin()) in (3, 7)
    assert scores.min() < 0.01 * scores.median()


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "densenet121", "vit_tiny"])
def test_scores_of_every_group_are_ordered_losses(name):
    model, size = tiny(name)
    before = copy.deepcopy(model.state_dict())
    _, grouping, surgeon = looked_at(model, images=32, size=size)
    for group in grouping.groups:
        scores = surgeon(model, group)
        assert scores.shape == (group.width,)
        assert torch.isfinite(scores).all()
        assert (scores >= 0).all()
        assert len(scores.unique()) > group.width // 2
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    allocation = partial(allocate_by_importance, power=surgeon.power)
    pruned = prune_channels(model, size, macs=0.6, importance=surgeon, allocation=allocation)
    assert pruned.macs_after <= 0.6 * pruned.macs_before
