"""Norms that keep their statistics, inside the convolutions before them: the same function, the same gradients."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import zoo
from transfer.training.cpu_operators import CpuOperators
from transfer.training.frozen_norms import frozen_norms
from transfer.training.recipe import Recipe
from transfer.training.trial import set_mode_


class Norms(TorchFunctionMode):
    """How many norms torch is asked to compute."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.asked += func is nn.functional.batch_norm
        return func(*args, **(kwargs or {}))


def trained(model):
    """As a recipe that keeps the statistics trains it; its norms are those of no fresh network."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    model = model.double().to(memory_format=torch.channels_last)
    set_mode_(model, Recipe(freeze_statistics=True), training=True)
    return model


def gradients_of(model, images, within):
    """Those of parameters that are used, and how many norms were computed."""
    model.zero_grad()
    torch.manual_seed(1)  # of dropout
    with CpuOperators(), (norms := Norms()), within:
        model(images).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, norms.asked


def compared(model, images):
    """How many norms are left to compute, where everything else is as before."""
    modes = [module.training for module in model.modules()]
    inside = frozen_norms(model, images)
    assert [module.training for module in model.modules()] == modes
    (wanted, every), (got, left) = gradients_of(model, images, nullcontext()), gradients_of(model, images, inside)
    assert every == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert wanted.keys() == dict(model.named_parameters()).keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-9, atol=1e-9 * float(gradient.abs().max()), msg=name)
    return left


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "mobilenet_v3_small", "timm:lcnet_050"])
def test_gradients_are_the_same_and_no_norm_is_computed(name):
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    assert compared(trained(zoo.create_model(name, num_classes=3)), images) == 0


def test_norms_before_convolutions_stay():
    """DenseNet's come before; those behind its first convolutions of each layer are computed there."""
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    model = trained(zoo.create_model("densenet121", num_classes=3))
    left = compared(model, images)
    assert 0 < left < sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


class Small(nn.Module):
    def __init__(self, forward, **norm):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False)
        self.norm, self.other, self.fc = nn.BatchNorm2d(4, **norm), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self._forward = forward

    def forward(self, x):
        return self.fc(self._forward(self, x).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("forward", "left"),
    [
        (lambda m, x: m.norm(m.a(x)) + m.other(m.b(x)), 0),
        (lambda m, x: m.norm(m.a(x).relu()) + m.other(m.b(x)), 1),  # something is between
        (lambda m, x: m.norm(m.a(x)) + m.other(m.a(x)), 2),  # a convolution of two norms
        (lambda m, x: m.norm(m.a(x)) + m.norm(m.b(x)) + m.other(m.a(x)), 3),
        (lambda m, x: m.norm(h := m.a(x)) + m.other(m.b(x)) + h, 2),  # its outputs go elsewhere too
        (lambda m, x: m.other(m.norm(m.a(x))) + m.b(x), 1),
    ],
)
def test_only_a_convolution_whose_outputs_go_to_its_norm_alone(forward, left):
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    model = trained(Small(forward))
    inside = frozen_norms(model, images)
    (wanted, _), (got, asked) = gradients_of(model, images, nullcontext()), gradients_of(model, images, inside)
    assert asked == left
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-9, atol=1e-9, msg=name)


def test_without_weights_of_its_own_and_where_only_some_are_frozen():
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    model = trained(Small(lambda m, x: m.norm(m.a(x)) + m.other(m.b(x)), affine=False))
    assert compared(model, images) == 0
    model.other.train()
    (_, asked) = gradients_of(model, images, frozen_norms(model, images))
    assert asked == 1
    model.train()
    assert isinstance(frozen_norms(model, images), nullcontext)
