"""Structured pruning: a pruned model is the masked model, the budget is kept, what must stay whole is not cut."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress.prune.allocate import allocate_global, layer_macs, macs_after
from compress.prune.groups import find_groups
from compress.prune.importance import Taylor, l2_norm
from compress.prune.recalibrate import recalibrate_
from compress.prune.structured import mask_, prune_channels
from transfer.data.loader import LabelledPixels
from zoo.cost import count_macs
from zoo.errors import UsageError
from zoo.init import he_normal_
from zoo.preprocess import Preprocess
from zoo.registry import create_model, list_models, model_entry


def tiny(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    entry = model_entry(name)
    options = entry.tiny or {}
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    side = options.get("image_size", min(entry.input_size[1], 64))
    return shake_(model), (entry.input_size[0], side, side)


def shake_(model: nn.Module) -> nn.Module:
    """Statistics and weights as far from their initial values as training takes them."""
    he_normal_(model)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "gamma")) or (name.endswith("weight") and tensor.dim() == 1):
                nn.init.uniform_(tensor, 0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                nn.init.normal_(tensor, 0, 0.2)
    return model


@pytest.mark.parametrize("name", [name for name in list_models(kind="classifier") if model_entry(name).tiny])
def test_pruned_is_masked(name):
    model, size = tiny(name)
    model = model.double()
    pruned = prune_channels(model.float(), size, macs=0.8, round_to=2)
    masked = copy.deepcopy(model).double()
    mask_(masked, pruned.cuts)
    images = torch.randn(3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = masked(images), pruned.model.double()(images)
        for cut in pruned.cuts:  # one index is wrong in each group
            if len(cut.keep) < cut.group.width:
                cut.keep[0] = min(set(range(cut.group.width)) - set(cut.keep.tolist()))
        control = copy.deepcopy(model).double()
        mask_(control, pruned.cuts)
        wrong = control(images)
    assert (got - expected).abs().max() <= 1e-5 * expected.std()
    assert (got - wrong).abs().max() > 1e-5 * expected.std(), "the comparison cannot fail"


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_budget_is_kept_and_used(share):
    model, size = tiny("resnet18")
    pruned = prune_channels(model, size, macs=share, round_to=2)
    assert pruned.macs_after == count_macs(pruned.model, size)
    assert share - 0.1 < pruned.macs_after / pruned.macs_before <= share


def test_counted_macs_are_the_real_ones():
    """`macs_after` counts without cutting; cutting and counting products must agree."""
    model, size = tiny("tf_efficientnet_lite0")
    groups = find_groups(model, torch.zeros(1, *size)).groups
    keeps = [np.arange(0, group.width, 2) for group in groups]
    counted = macs_after(groups, keeps, layer_macs(model, torch.zeros(1, *size)), count_macs(model, size))
    from compress.prune.structured import Cut, cut_

    cut = copy.deepcopy(model)
    cut_(cut, [Cut(group, keep) for group, keep in zip(groups, keeps, strict=True)])
    assert counted == pytest.approx(count_macs(cut, size), rel=1e-6)


def test_caller_keeps_the_model():
    model, size = tiny("resnet18")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune_channels(model, size, macs=0.5, round_to=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_classes_and_normalized_widths_stay_whole():
    model, size = tiny("vit_tiny")
    grouping = find_groups(model, torch.zeros(1, *size))
    assert {group.name.rpartition(".")[2] for group in grouping.groups} == {"fc1"}
    assert any("LayerNorm" in r or "parameter" in r or "attention" in r for r in grouping.whole.values())
    assert grouping.whole["head"] == "its outputs are the classes"


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_share_outside_range(share):
    model, size = tiny("lenet5")
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        prune_channels(model, size, macs=share)


def test_unreachable_share_says_the_smallest():
    model, size = tiny("vit_tiny")
    with pytest.raises(UsageError, match=r"at least [0-9.]+% stays"):
        prune_channels(model, size, macs=0.05)


def test_heads_of_training_alone_are_not_left_behind():
    model = create_model("googlenet", **model_entry("googlenet").tiny, aux_heads=True)
    with pytest.raises(UsageError, match=r"GoogLeNet has auxiliary heads \(aux1\.fc2, aux2\.fc2\).*build it without"):
        find_groups(model, torch.zeros(1, 3, 64, 64))


def test_widths_are_rounded_and_floored():
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(1), nn.Linear(64 * 36, 5))
    pruned = prune_channels(model, (3, 10, 10), macs=0.4)
    widths = {cut.group.name: len(cut.keep) for cut in pruned.cuts}
    assert widths.keys() == {"0", "2"}
    assert all(width % 8 == 0 and width >= 8 for width in widths.values())
    assert pruned.model[4].in_features == widths["2"] * 36


def test_best_scores_are_kept():
    model = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.Flatten(1), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1.0, 17.0).view(16, 1, 1, 1).expand(16, 3, 1, 1))
        model[2].weight.fill_(1.0)
    groups = find_groups(model, torch.zeros(1, 3, 1, 1)).groups
    layers = layer_macs(model, torch.zeros(1, 3, 1, 1))
    scores = [l2_norm(model, group).numpy() for group in groups]
    (keep,) = allocate_global(groups, scores, layers, total_macs=80, share=0.5, round_to=8)
    np.testing.assert_array_equal(keep, np.arange(8, 16))


def test_taylor_is_the_derivative_of_a_gate():
    """Against finite differences: multiply the BatchNorm's output by 1 + h and watch the loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(1), nn.Linear(6 * 36, 4))
    model = shake_(model).double().eval()
    images, labels = torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.randint(0, 4, (8,))
    (group,) = find_groups(model.float(), torch.zeros(1, 3, 8, 8)).groups
    scores = Taylor(model.double(), [(images, labels)])(model, group)

    def loss(channel: int, factor: float) -> float:
        gated = copy.deepcopy(model)
        with torch.no_grad():
            gated[1].weight[channel] *= factor
            gated[1].bias[channel] *= factor
            return float(nn.functional.cross_entropy(gated(images), labels))

    h = 1e-5
    expected = [abs(loss(c, 1 + h) - loss(c, 1 - h)) / (2 * h) for c in range(6)]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


def test_recalibration_keeps_each_channels_distribution():
    """Behind a cut every BatchNorm gives out the mean and deviation that the same channel had before it."""
    torch.manual_seed(0)
    model, size = tiny("resnet18")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, *size[1:], 3), dtype=np.uint8)
    data = LabelledPixels(pixels, np.zeros(64, dtype=np.int64))
    preprocess = Preprocess(size=size[1:])
    pruned = prune_channels(model, size, macs=0.5, round_to=2)
    recalibrate_(pruned.model, model, pruned.cuts, data, preprocess)
    images = torch.from_numpy(preprocess.normalize(pixels))
    kept = {cut.group.name: cut.keep for cut in pruned.cuts}
    before, after = (outputs_of(m, "layer1.0.bn1", images) for m in (model, pruned.model))
    before = before[:, kept["layer1.0.conv1"]]
    for moment in (torch.mean, torch.std):
        np.testing.assert_allclose(moment(after, (0, 2, 3)), moment(before, (0, 2, 3)), rtol=1e-3, atol=1e-3)


def outputs_of(model: nn.Module, name: str, images: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]
