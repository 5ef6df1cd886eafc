"""Layers that end in a sum are fitted to the sum: against ridge regression by numpy, over a residual network."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress.dependency.cut import cut_copy
from compress.dependency.groups import find_groups
from compress.pruning.reconstruct import reconstruct_
from compress.pruning.structured import Cut
from compress.pruning.sums import Calls, Sums
from transfer.data.loader import LabelledPixels
from zoo.blocks import leave_out_
from zoo.preprocess import Preprocess

SIZE = (3, 5, 5)


def first_plus_second(stream, branch):
    return stream + branch


def in_place(stream, branch):
    branch += stream
    return branch


def by_name(stream, branch):
    return torch.add(branch, stream)


class Block(nn.Module):
    def __init__(self, add, *, normed):
        super().__init__()
        self.add = add
        self.inner = nn.Conv2d(12, 16, 1)
        self.outer = nn.Conv2d(16, 12, 1, bias=not normed)
        self.norm = nn.BatchNorm2d(12) if normed else nn.Identity()
        if normed:
            nn.init.uniform_(self.norm.weight, 0.5, 2)
            nn.init.normal_(self.norm.bias)
            nn.init.normal_(self.norm.running_mean, std=0.1)
            nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x):
        return self.add(x, self.norm(self.outer(torch.relu(self.inner(x)))))


class Residual(nn.Module):
    def __init__(self, add, *, normed):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.blocks = nn.Sequential(*(Block(add, normed=normed) for _ in range(2)))
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def through(model, images):
    """What goes into the last block, into its last layer, and what comes out of the block; rows of channels."""
    seen = {}

    def note(name):
        return lambda module, inputs: seen.update({name: inputs[0].movedim(1, -1).flatten(0, 2).double().numpy()})

    last = model.blocks[1]
    handles = [last.register_forward_pre_hook(note("stream")), last.outer.register_forward_pre_hook(note("inputs"))]
    handles.append(
        last.register_forward_hook(
            lambda module, inputs, output: seen.update(sum=output.movedim(1, -1).flatten(0, 2).double().numpy())
        )
    )
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("gone", [[], ["blocks.0"]])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("add", [first_plus_second, in_place, by_name])
def test_the_last_layer_of_a_branch_makes_up_for_the_stream(add, normed, gone):
    """Also for a block before it that is left out."""
    torch.manual_seed(0)
    model = Residual(add, normed=normed).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 5, 3), dtype=np.uint8)
    data, preprocess = LabelledPixels(pixels, np.zeros(40, dtype=np.int64)), Preprocess(size=SIZE[1:])
    grouping = find_groups(model, torch.zeros(1, *SIZE))
    keeps = [np.arange(0, group.width, 2) for group in grouping.groups]
    assert {group.name for group in grouping.groups} >= {"stem", "blocks.0.inner", "blocks.1.inner"}
    pruned = cut_copy(model, grouping, keeps)
    leave_out_(pruned, gone)
    start = copy.deepcopy(pruned)
    reconstruct_(
        pruned, model, [Cut(group, keep) for group, keep in zip(grouping.groups, keeps, strict=True)], data, preprocess
    )

    images = torch.from_numpy(preprocess.normalize(pixels))
    uncut, now = through(model, images), through(pruned, images)
    assert np.abs(now["stream"] - uncut["stream"][:, ::2]).mean() > 0.01, "nothing to make up for"
    branch = uncut["sum"][:, ::2] - now["stream"]
    if normed:
        norm = start.blocks[1].norm
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().numpy()
        shift = norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * scale
        branch = (branch - shift) / scale
    old, seen = start.blocks[1].outer.weight.detach().flatten(1).double().numpy(), now["inputs"]
    if not normed:
        seen, branch = seen - seen.mean(0), branch - branch.mean(0)
    gram = seen.T @ seen
    gram += 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    expected = old + np.linalg.solve(gram, seen.T @ (branch - seen @ old.T)).T
    np.testing.assert_allclose(pruned.blocks[1].outer.weight.detach().flatten(1).numpy(), expected, atol=1e-4)


def test_what_was_changed_in_place_is_no_longer_the_layers():
    """conv -> relu_ -> + x: the sum is not of the convolution's outputs."""
    found, conv, x = [], nn.Conv2d(3, 3, 1), torch.randn(1, 3, 4, 4)
    with torch.no_grad(), Sums(lambda *given: found.append(given)) as sums:
        x = x * 1
        for change in (torch.relu_, lambda y: y):
            output = conv(x)
            with sums.silent():
                sums.mark(output, "conv")
            change(output) + x
    assert [(name, call) for name, scale, call, other in found] == [("conv", 0)]


def test_calls_are_numbered_alike_in_both_networks():
    with torch.no_grad(), Calls(keep=[2]) as calls:
        x = torch.ones(2) * 2
        with calls.silent():
            x * 100
        y = x + 1
    assert calls.kept[2] is y  # ones, times, plus
