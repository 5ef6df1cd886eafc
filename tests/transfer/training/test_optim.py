"""Optimizers against torch's own and against loops in NumPy; schedules against torch's schedulers."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from transfer.training.optim import (
    SCHEDULES,
    build_optimizer,
    constant,
    cosine,
    exponential,
    freeze_stages_,
    is_decayed,
    one_cycle,
    rate,
    set_rates_,
    step_down,
)
from transfer.training.recipe import Recipe
from zoo.classifier import stages
from zoo.create import create_model
from zoo.errors import UsageError
from zoo.models import convnext, efficientnet, resnet, vit

OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adam", "adamw")
RECIPE = Recipe(lr=0.05, backbone_lr=0.02, weight_decay=0.1)
X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


class Small(nn.Module):
    """Two stages and a classifier, one with weights that lie channels-last."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3)
        self.conv2 = nn.Conv2d(5, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(torch.tanh(self.conv2(torch.tanh(self.conv1(x)))).mean(dim=(2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Small().to(memory_format=torch.channels_last)


def train(model, optimizer, steps, shares=(1.0, 0.5, 0.2, 1.0, 0.7, 0.1)):
    for step in range(steps):
        set_rates_(optimizer, shares[step])
        optimizer.zero_grad()
        F.cross_entropy(model(X), LABELS).backward()
        optimizer.step()


# torch's own class, without fused or foreach, with the arguments written out again
PLAIN = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True, foreach=False),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, foreach=False),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, alpha=0.9, eps=1e-6, foreach=False),
    "adam": lambda groups: torch.optim.Adam(groups, eps=1e-6, foreach=False),
    "adamw": lambda groups: torch.optim.AdamW(groups, eps=1e-6, foreach=False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_is_torchs_own_at_the_rates_of_the_stages(name, model):
    recipe = replace(RECIPE, optimizer=name, layer_decay=0.5)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    train(model, build_optimizer(model, recipe), 6)
    peaks = {"conv1": 0.01, "conv2": 0.02, "fc": 0.05}
    groups = [
        {"params": [p], "lr": 0.0, "peak_lr": peaks[key.split(".")[0]], "weight_decay": 0.1 if p.ndim > 1 else 0.0}
        for key, p in plain.named_parameters()
    ]
    train(plain, PLAIN[name](groups), 6)
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def loop_sgd(w, gradient, lr, steps, decay, momentum=0.9):
    v = np.zeros_like(w)
    for _ in range(steps):
        g = gradient(w) + decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v)
    return w


def loop_adam(w, gradient, lr, steps, decay, b1=0.9, b2=0.999, eps=1e-6):
    m = v = np.zeros_like(w)
    for t in range(1, steps + 1):
        g = gradient(w) + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


@pytest.mark.parametrize(("name", "loop"), [("sgd", loop_sgd), ("adam", loop_adam)])
def test_against_a_loop_in_numpy(name, loop):
    """Least squares: the gradient of |Aw - b|^2 / 2 is A'(Aw - b)."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)) / 3, rng.normal(size=7)
    network = nn.Sequential(nn.Linear(5, 1, bias=False))
    start = network[0].weight.detach().double().numpy()[0].copy()
    recipe = replace(RECIPE, optimizer=name, lr=0.05, weight_decay=0.01)
    optimizer = build_optimizer(network, recipe)
    set_rates_(optimizer, 1.0)
    for _ in range(20):
        optimizer.zero_grad()
        residual = network(torch.tensor(a, dtype=torch.float32))[:, 0] - torch.tensor(b, dtype=torch.float32)
        (residual.square().sum() / 2).backward()
        optimizer.step()
    expected = loop(start, lambda w: a.T @ (a @ w - b), 0.05, 20, 0.01)
    np.testing.assert_allclose(network[0].weight.detach().numpy()[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loaded_moments_of_channels_last_weights_give_the_same_bits(name, model):
    """A file holds contiguous tensors, and fused kernels walk through memory: the strides have to be put back."""
    optimizer = build_optimizer(model, replace(RECIPE, optimizer=name))
    train(model, optimizer, 3)
    resumed = copy.deepcopy(model)
    second = build_optimizer(resumed, replace(RECIPE, optimizer=name))
    saved = optimizer.state_dict()
    slots = {i: {k: v.contiguous().clone() for k, v in s.items()} for i, s in saved["state"].items()}
    second.load_state_dict({"state": slots, "param_groups": second.state_dict()["param_groups"]})
    train(model, optimizer, 3)
    train(resumed, second, 3)
    for found, expected in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, expected)
    assert second.state[resumed.conv2.weight]  # it has moments, and they lie as the weight does
    for slot in second.state[resumed.conv2.weight].values():
        assert slot.ndim == 0 or slot.stride() == resumed.conv2.weight.stride()


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adam", "adamw"])
def test_the_fused_kernels_are_used_where_they_can_be(name, model):
    recipe = replace(RECIPE, optimizer=name)
    assert build_optimizer(model, recipe).defaults["fused"]
    assert not build_optimizer(model.double(), recipe).defaults["fused"]


BACKBONES = {
    "resnet20": resnet.TINY["resnet20"],
    "tf_efficientnet_lite0": efficientnet.TINY["tf_efficientnet_lite0"],
    "convnext_tiny": convnext.TINY["convnext_tiny"],
    "vit_tiny": vit.TINY["vit_tiny"],
}


@pytest.mark.parametrize("name", BACKBONES)
def test_rates_fall_from_the_classifier_to_the_image(name):
    network = create_model(name, **BACKBONES[name])
    optimizer = build_optimizer(network, replace(RECIPE, layer_decay=0.5))
    peaks = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert peaks.keys() == {id(p) for p in network.parameters()}
    found = [{peaks[id(p)] for p in stage.parameters} for stage in stages(network)]
    expected = [0.05, *(0.02 * 0.5**k for k in range(len(found) - 1))]
    assert found == [{value} for value in expected[::-1]]
    for module in network.modules():
        for key, parameter in module.named_parameters(recurse=False):
            layer = isinstance(module, nn.Linear | nn.Conv2d) and key == "weight"
            assert (decays[id(parameter)] > 0) == layer, (type(module), key)


def test_without_layer_decay_there_are_four_groups():
    network = create_model("resnet20", **BACKBONES["resnet20"])
    groups = build_optimizer(network, RECIPE).param_groups
    assert sorted((g["peak_lr"], g["weight_decay"]) for g in groups) == [(0.02, 0), (0.02, 0.1), (0.05, 0), (0.05, 0.1)]


@pytest.mark.parametrize(
    ("name", "shape", "decayed"),
    [
        ("conv.weight", (4, 3, 3, 3), True),
        ("attn.in_proj_weight", (12, 4), True),
        ("lstm.weight_hh_l0", (8, 2), True),
        ("fc.parametrizations.weight.original", (4, 4), True),
        ("norm.weight", (4,), False),
        ("fc.bias", (4,), False),
        ("cls_token", (1, 1, 4), False),
        ("pos_embed", (1, 9, 4), False),
        ("features.1.0.layer_scale", (4, 1, 1), False),  # torchvision's ConvNeXt
        ("attn.relative_position_bias_table", (169, 3), False),  # timm's and torchvision's Swin
    ],
)
def test_only_weights_of_layers_are_decayed(name, shape, decayed):
    assert is_decayed(name, torch.zeros(shape)) == decayed


def test_names_that_a_model_spares_itself_are_spared(model):
    model.no_weight_decay = lambda: {"conv1.weight"}
    optimizer = build_optimizer(model, RECIPE)
    (decay,) = {g["weight_decay"] for g in optimizer.param_groups if any(p is model.conv1.weight for p in g["params"])}
    assert decay == 0


def test_frozen_stages_are_not_trained(model):
    before = copy.deepcopy(model)
    recipe = replace(RECIPE, frozen_stages=1)
    freeze_stages_(model, recipe)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True, True, True]
    train(model, build_optimizer(model, recipe), 2)
    moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert moved == [False, False, True, True, True, True]


def test_freezing_everything_is_refused(model):
    with pytest.raises(UsageError, match="frozen_stages=3 must be below 3"):
        freeze_stages_(model, replace(RECIPE, frozen_stages=3))
    with pytest.raises(UsageError, match="no parameter of the model is trainable"):
        build_optimizer(model.requires_grad_(False), RECIPE)


# schedules


def torch_rates(make, steps):
    """The rates of a scheduler of torch from a peak of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about the order of calls
        scheduler = make(optimizer)
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return np.array(found)


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (constant, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (cosine, lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=60)),
        (exponential, lambda o: lr_scheduler.ExponentialLR(o, gamma=1e-3 ** (1 / 60))),
        (step_down, lambda o: lr_scheduler.MultiStepLR(o, milestones=[18, 36, 54], gamma=0.1)),
    ],
)
def test_schedule_without_warm_up_is_torchs(schedule, make):
    found = [schedule(step, 60, 0.0) for step in range(60)]
    np.testing.assert_allclose(found, torch_rates(make, 60), rtol=1e-6, atol=1e-9)


def test_step_is_steplr_where_the_last_drop_is_not_reached():
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, step_size=18, gamma=0.1), 60)
    np.testing.assert_allclose([step_down(step, 60, 0.0) for step in range(60)], expected, rtol=1e-6)


def test_one_cycle_is_torchs_with_a_linear_rise():
    def make(strategy):
        return lambda o: lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=60, pct_start=0.25, anneal_strategy=strategy, div_factor=15, final_div_factor=1e12
        )

    found = [one_cycle(step, 60, 0.25) for step in range(60)]
    np.testing.assert_allclose(found[:15], torch_rates(make("linear"), 60)[:15], rtol=1e-6)
    np.testing.assert_allclose(found[14:], torch_rates(make("cos"), 60)[14:], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_every_schedule_rises_linearly_to_the_peak_and_never_again(name, steps, warmup):
    found = np.array([rate(step, steps, Recipe(schedule=name, warmup=warmup)) for step in range(steps)])
    assert ((found >= 0) & (found <= 1)).all()
    rise = round(warmup * steps)
    np.testing.assert_allclose(found[:rise], np.arange(1, rise + 1) / max(1, rise))
    assert found.max() == 1.0
    assert (np.diff(found[max(0, rise - 1) :]) <= 1e-12).all()


def test_rates_are_a_share_of_each_groups_peak(model):
    optimizer = build_optimizer(model, RECIPE)
    set_rates_(optimizer, 0.25)
    assert {g["lr"] for g in optimizer.param_groups} == {0.0125, 0.005}


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_a_run_too_short_to_rise_never_takes_the_full_rates(schedule):
    recipe = Recipe(schedule=schedule, least_rise=16)
    for steps in (1, 2, 3, 6, 12, 63, 64, 300):
        shares = [rate(step, steps, recipe) for step in range(steps)]
        free = [rate(step, steps, replace(recipe, least_rise=1)) for step in range(steps)]
        assert max(np.diff([0.0, *shares])) <= 1 / 16 + 1e-9, "the rise of each step"
        reached = min(1, max(1, round(steps / 4)) / 16) ** 2
        assert shares == pytest.approx([reached * share for share in free])
    assert rate(1, 2, recipe) <= 1 / 16
