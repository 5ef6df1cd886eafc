"""Zeros stay zeros, and a model that lost some is refused."""

import pytest
import torch
from torch import nn

from compress.recovery.masks import (
    attach_masks_,
    check_zeros,
    density,
    detach_masks_,
    hold_zeros,
    masks_of,
    nonzeros,
    set_masks_,
)
from zoo.errors import SlimzooError


def half_empty():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight[::2] = 0.0
    return model


def test_density_counts_weights_alone():
    assert density(half_empty()) == (18 + 16) / (36 + 48)


def test_zeros_are_held_while_an_optimizer_with_momentum_moves_everything():
    model = half_empty()
    attach_masks_(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(5):
        optimizer.zero_grad()
        model(torch.randn(2, 1, 4, 4)).square().sum().backward()
        optimizer.step()
        assert (model[3].weight[::2] != 0).any() or step == 0
        hold_zeros(model, step + 1)
        assert not (model[3].weight[::2]).any()
    assert (model[3].weight[1::2] != 0).all()
    detach_masks_(model)
    assert not masks_of(model)
    assert not any("mask" in name for name in model.state_dict())


def test_a_zero_lives_under_no_mask():
    model = half_empty()
    attach_masks_(model)
    set_masks_(model, {name: torch.ones_like(mask) for name, mask in masks_of(model).items()})
    assert not masks_of(model)["3"][::2].any()


def test_lost_zeros_are_refused():
    model = half_empty()
    before = nonzeros(model)
    check_zeros(model, before)
    with torch.no_grad():
        model[3].weight[0, 0] = 1e-30
    with pytest.raises(SlimzooError, match=r"3 lost 1 of its 32 zeros.*after_step=hold_zeros"):
        check_zeros(model, before)


def test_other_shapes_are_refused():
    model = half_empty()
    before = nonzeros(model)
    model[3] = nn.Linear(16, 2)
    with pytest.raises(SlimzooError, match="cut channels before"):
        check_zeros(model, before)
