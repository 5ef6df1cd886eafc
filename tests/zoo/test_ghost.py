"""A copy of a model is a model of its own, with the same numbers and the same sharing."""

import copy

import torch
from torch import nn

from zoo.create import create_model
from zoo.ghost import copy_of, ghost_of
from zoo.models.registry import model_entry


def test_copies_are_those_of_deepcopy():
    names = ("resnet18", "lstm", "vit_tiny")
    model = nn.ModuleDict({name: create_model(name, **model_entry(name).tiny) for name in names})
    model["again"] = model["resnet18"].layer1
    model.taps, model.note = ["a", [1, 2]], {"first": model["lstm"]}
    ours, theirs = copy_of(model), copy.deepcopy(model)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name])
        assert tensor.data_ptr() != model.state_dict()[name].data_ptr()
    assert ours["again"] is ours["resnet18"].layer1 is not model["again"]
    assert ours.note["first"] is ours["lstm"] is not model["lstm"]
    assert ours.taps == model.taps
    assert ours.taps is not model.taps
    x = torch.randn(2, *model_entry("lstm").input_size)
    assert torch.equal(ours["lstm"](x), model["lstm"](x))


def test_hooks_are_copied_but_not_to_ghosts():
    model, seen = nn.Sequential(nn.Linear(2, 3)), []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    copy_of(model)(torch.zeros(1, 2))
    assert seen == [1]
    out = ghost_of(model)(torch.empty(1, 2, device="meta"))
    assert (seen, out.is_meta, model[0].weight.is_meta) == ([1], True, False)
