"""Structured pruning: a pruned model is the masked model, the budget is kept, what must stay whole is not cut."""

import copy
import re

import numpy as np
import pytest
import torch
from shaken_models import shake_, thinned, tiny
from torch import nn

from compress.dependency.cut import cut_copy
from compress.dependency.groups import find_groups
from compress.dependency.verify import check_cut
from compress.pruning.allocate import allocate, global_ranking, isomorphic_ranking, local_ranking
from compress.pruning.budget import Cost
from compress.pruning.importance import Random, Taylor, bn_scale, l1_norm, l2_norm
from compress.pruning.reconstruct import reconstruct_
from compress.pruning.structured import Cut, prune_channels
from transfer.data.augment import NONE, Augment
from transfer.data.loader import LabelledPixels
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.errors import UsageError
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, load_model, save_model
from zoo.models.registry import model_entry
from zoo.preprocess import Preprocess


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_budget_is_kept_and_used(share):
    model, size = tiny("resnet18")
    pruned = prune_channels(model, size, macs=share, round_to=2)
    assert pruned.macs_after == count_macs(pruned.model, size)
    assert share - 0.1 < pruned.macs_after / pruned.macs_before <= share


def test_saved_macs_are_those_of_each_cut_alone():
    model, size = tiny("vit_tiny")
    grouping = find_groups(model, torch.zeros(1, *size))
    keeps = thinned(grouping)
    cost = Cost.macs(grouping)
    assert cost.total == count_macs(model, size)
    whole = [np.arange(group.width) for group in grouping.groups]
    for i, saved in enumerate(cost.saved_alone(keeps)):
        alone = [keeps[j] if i == j else keep for j, keep in enumerate(whole)]
        assert saved == cost.total - cost.after(alone) > 0


def test_caller_keeps_the_model():
    model, size = tiny("resnet18")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune_channels(model, size, macs=0.5, round_to=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_classes_and_normalized_widths_stay_whole():
    model, size = tiny("vit_tiny")
    grouping = find_groups(model, torch.zeros(1, *size))
    assert {group.kind for group in grouping.groups} == {"heads", "head widths", "channels"}
    assert grouping.whole == {
        "patch_embed.proj": "a LayerNorm normalizes over it (blocks.0.norm1)",
        "head": "its outputs are the classes",
    }


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_share_outside_range(share):
    model, size = tiny("lenet5")
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        prune_channels(model, size, macs=share)


def test_unreachable_share_says_the_smallest():
    model, size = tiny("vit_tiny")
    reason = r"since patch_embed\.proj is left whole \(a LayerNorm normalizes over it \(blocks\.0\.norm1\)\); "
    reason += r"with the widths .* only [0-9.]+%; else ask"
    with pytest.raises(UsageError, match=r"at least [0-9.]+% stays, " + reason):
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
    grouping = find_groups(model, torch.zeros(1, 3, 1, 1))
    scores = [l2_norm(model, group).numpy() for group in grouping.groups]
    (keep,) = allocate(grouping, scores, share=0.5, round_to=8)
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
    weights = {name: p.clone() for name, p in pruned.model.named_parameters()}
    reconstruct_(pruned.model, model, pruned.cuts, data, preprocess, weights=False)
    assert all(torch.equal(p, weights[name]) for name, p in pruned.model.named_parameters())
    images = torch.from_numpy(preprocess.normalize(pixels))
    kept = {cut.group.name: cut.keep for cut in pruned.cuts}
    before, after = (outputs_of(m, "layer1.0.bn1", images) for m in (model, pruned.model))
    before = before[:, kept["layer1.0.conv1"]]
    for moment in (torch.mean, torch.std):
        np.testing.assert_allclose(moment(after, (0, 2, 3)), moment(before, (0, 2, 3)), rtol=1e-3, atol=1e-3)


class Twice(nn.Module):
    """A convolution before a cut, one behind it, and one that runs twice."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=bias)
        self.second = nn.Conv2d(16, 6, (3, 1), stride=2, padding=(1, 0), dilation=(2, 1), bias=bias)
        self.again = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(self.again(self.again(x)).mean((2, 3)))


@pytest.mark.parametrize("bias", [False, True])
def test_weights_behind_a_cut_are_the_least_squares_fit(bias):
    """Against ridge regression over a loop of patches, by the normal equations of numpy."""
    torch.manual_seed(0)
    model, size = Twice(bias=bias).eval(), (3, 9, 9)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 9, 9, 3), dtype=np.uint8)
    data, preprocess = LabelledPixels(pixels, np.zeros(40, dtype=np.int64)), Preprocess(size=size[1:])
    grouping = find_groups(model, torch.zeros(1, *size))
    keeps = [np.arange(1, group.width) if group.name != "first" else np.arange(0, 16, 2) for group in grouping.groups]
    pruned = cut_copy(model, grouping, keeps)
    start = copy.deepcopy(pruned)
    cuts = [Cut(group, keep) for group, keep in zip(grouping.groups, keeps, strict=True)]
    reconstruct_(pruned, model, cuts, data, preprocess)

    images = torch.from_numpy(preprocess.normalize(pixels))
    assert torch.equal(pruned.first.weight, start.first.weight)  # nothing is missing there
    assert torch.equal(pruned.again.weight, start.again.weight)  # it has two jobs
    left = dict(zip([group.name for group in grouping.groups], keeps, strict=True))
    kept = left.get("second", np.arange(6))
    wanted, inputs = outputs_of(model, "second", images)[:, kept], torch.relu(outputs_of(start, "first", images))
    padded = np.pad(inputs.numpy(), ((0, 0), (0, 0), (1, 1), (0, 0)))
    rows, targets = [], []
    for image in range(40):
        for y in range(wanted.shape[2]):
            for x in range(wanted.shape[3]):
                rows.append(padded[image, :, 2 * y : 2 * y + 5 : 2, 2 * x].reshape(-1))
                targets.append(wanted[image, :, y, x].numpy())
    seen, aim = np.array(rows, dtype=np.float64), np.array(targets, dtype=np.float64)
    if bias:
        mean_seen, mean_aim = seen.mean(0), aim.mean(0)
        seen, aim = seen - mean_seen, aim - mean_aim
    old = start.second.weight.detach().flatten(1).numpy().astype(np.float64)
    gram = seen.T @ seen
    gram += 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    expected = old + np.linalg.solve(gram, seen.T @ (aim - seen @ old.T)).T
    np.testing.assert_allclose(pruned.second.weight.detach().flatten(1).numpy(), expected, atol=2e-5)
    if bias:
        np.testing.assert_allclose(pruned.second.bias.detach(), mean_aim - expected @ mean_seen, atol=2e-5)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny", "mobilenet_v2", "densenet121"])
def test_reconstruction_brings_the_answers_nearer(name):
    """Of a trained or untrained network alike: the cut one's logits come nearer to the uncut one's."""
    torch.manual_seed(0)
    model, size = tiny(name)
    shake_(model)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (128, *size[1:], 3), dtype=np.uint8)
    data, preprocess = LabelledPixels(pixels, np.zeros(128, dtype=np.int64)), Preprocess(size=size[1:])
    pruned = prune_channels(model, size, macs=0.6, round_to=2)
    others = torch.from_numpy(preprocess.normalize(rng.integers(0, 256, (64, *size[1:], 3), dtype=np.uint8)))
    errors = []
    for weights in (False, True):
        network = copy.deepcopy(pruned.model)
        reconstruct_(network, model, pruned.cuts, data, preprocess, weights=weights)
        with torch.no_grad():
            errors.append(float((network(others) - model(others)).square().mean()))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_few_images_are_fitted_by_views_of_them_too(name):
    """Of 8 smooth images: on others the answers come nearer with views, and the same bits twice."""
    torch.manual_seed(0)
    model, size = tiny(name)
    shake_(model)
    coarse = torch.rand(72, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 255
    smooth = torch.nn.functional.interpolate(coarse, size[1:], mode="bicubic").clamp(0, 255)
    pixels, preprocess = smooth.byte().permute(0, 2, 3, 1).numpy(), Preprocess(size=size[1:])
    data = LabelledPixels(pixels[:8], np.zeros(8, dtype=np.int64))
    pruned = prune_channels(model, size, macs=0.6, round_to=2)
    others = torch.from_numpy(preprocess.normalize(pixels[8:]))
    errors = []
    for augment in (NONE, Augment(), Augment()):
        network = copy.deepcopy(pruned.model)
        reconstruct_(network, model, pruned.cuts, data, preprocess, augment=augment)
        with torch.no_grad():
            errors.append(float((network(others) - model(others)).square().mean()))
    assert errors[1] < 0.8 * errors[0]
    assert errors[1] == errors[2]


def test_reconstruction_of_a_layer_that_nothing_reaches():
    """All of its inputs that are left are 0: there is nothing to fit by, and nothing becomes NaN."""
    model, size = Twice(bias=True).eval(), (3, 9, 9)
    with torch.no_grad():
        model.first.bias[::2] = -1e6
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3), dtype=np.uint8)
    data = LabelledPixels(pixels, np.zeros(8, dtype=np.int64))
    grouping = find_groups(model, torch.zeros(1, *size))
    keeps = [np.arange(0, group.width, 2 if group.name == "first" else 1) for group in grouping.groups]
    pruned = cut_copy(model, grouping, keeps)
    cuts = [Cut(group, keep) for group, keep in zip(grouping.groups, keeps, strict=True)]
    reconstruct_(pruned, model, cuts, data, Preprocess(size=size[1:]))
    assert torch.equal(pruned.second.weight, model.second.weight[:, ::2])
    assert all(p.isfinite().all() for p in pruned.parameters())


def outputs_of(model: nn.Module, name: str, images: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return seen[0]


def chain(*widths: int) -> nn.Module:
    """1x1 convolutions from 3 channels through these widths to 2 classes, for inputs of one pixel."""
    layers = [nn.Conv2d(a, b, 1, bias=False) for a, b in zip((3, *widths), (*widths, 2), strict=False)]
    return nn.Sequential(*layers, nn.Flatten(1)).eval()


def test_local_ranking_cuts_every_group_alike():
    grouping = find_groups(chain(16, 32, 32), torch.zeros(1, 3, 1, 1))
    scores = [np.arange(g.width) * 10.0**i for i, g in enumerate(grouping.groups)]
    keeps = allocate(grouping, scores, share=0.3, ranking=local_ranking, round_to=1)
    shares = [len(keep) / group.width for keep, group in zip(keeps, grouping.groups, strict=True)]
    assert max(shares) - min(shares) <= 1 / 16
    keeps = allocate(grouping, scores, share=0.3, ranking=global_ranking, round_to=1, floor=0.1)
    assert len(keeps[0]) == 2 < len(keeps[2])  # a tenth of 16: it holds the smallest scores


def test_isomorphic_ranking_compares_only_equal_structures():
    """The last three groups are alike, and their channels are ranked together; the first is ranked by itself."""
    grouping = find_groups(chain(16, 32, 32, 32), torch.zeros(1, 3, 1, 1))
    scores = [np.arange(g.width, dtype=float) for g in grouping.groups]
    for i, more in enumerate((1000, 100, 0, 50)):
        scores[i] += more
    tops = [rank.max() for rank in isomorphic_ranking(grouping, scores)]
    np.testing.assert_allclose(tops, [1, 1, 1 / 3, 2 / 3])


def test_tied_groups_stay_equally_wide():
    model, size = tiny("vit_tiny")
    grouping = find_groups(model, torch.zeros(1, *size))
    rng = np.random.default_rng(0)
    scores = [rng.random(g.width) + (i % 2) for i, g in enumerate(grouping.groups)]
    keeps = allocate(grouping, scores, share=0.6, round_to=2)
    widths = {}
    for group, keep in zip(grouping.groups, keeps, strict=True):
        if group.tied is not None:
            widths.setdefault(group.tied, []).append(len(keep))
    assert len(widths) == 2
    assert all(len(pair) == 2 and len(set(pair)) == 1 for pair in widths.values())


@pytest.mark.parametrize("criterion", [l1_norm, l2_norm, bn_scale, Random(0)])
def test_criteria_give_a_score_a_channel(criterion):
    for name in ("resnet18", "vit_tiny"):
        model, size = tiny(name)
        for group in find_groups(model, torch.zeros(1, *size)).groups:
            scores = criterion(model, group)
            assert scores.shape == (group.width,)
            assert (scores >= 0).all()
            assert len(scores.unique()) > 1
            torch.testing.assert_close(scores, criterion(model, group))


def test_norms_against_loops():
    model, size = tiny("resnet18")
    group = next(g for g in find_groups(model, torch.zeros(1, *size)).groups if g.name == "layer1.0.conv1")
    rows, columns = (conv.weight.detach().double() for conv in (model.layer1[0].conv1, model.layer1[0].conv2))
    for criterion, p in ((l1_norm, 1), (l2_norm, 2)):
        parts = [
            torch.tensor([[float(torch.linalg.vector_norm(w, p)) for w in ws]])
            for ws in (rows, columns.transpose(0, 1))
        ]
        expected = sum(part[0] / part.mean() for part in parts) / 2
        torch.testing.assert_close(criterion(model, group), expected.double(), rtol=1e-5, atol=0)
    scale = model.layer1[0].bn1.weight.detach().abs().double()
    torch.testing.assert_close(bn_scale(model, group), scale)


def test_random_scores_depend_on_seed_and_group():
    model, size = tiny("resnet18")
    first, second = find_groups(model, torch.zeros(1, *size)).groups[:2]
    assert not torch.equal(Random(0)(model, first), Random(1)(model, first))
    assert not torch.equal(Random(0)(model, first), Random(0)(model, second))


class FixedShape(nn.Module):
    """Its forward knows by heart how many channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.second = nn.Conv2d(16, 24, 1)
        self.fc = nn.Linear(24 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).relu())
        return self.fc(x.reshape(-1, 24 * 4))


def test_fixed_shapes_are_left_whole_and_named():
    model = FixedShape().eval()
    grouping = find_groups(model, torch.zeros(1, 3, 2, 2))
    assert [group.name for group in grouping.groups] == ["first"]
    assert re.search(r"fixes a shape.*pruning/test_structured\.py:\d+", grouping.whole["second"])
    pruned = prune_channels(model, (3, 2, 2), macs=0.9)
    assert pruned.model(torch.zeros(2, 3, 2, 2)).shape == (2, 5)


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.fft.fft(self.first(x), dim=1).real).mean((2, 3))


def test_operators_without_a_rule_are_named():
    grouping = find_groups(Spectrum().eval(), torch.zeros(1, 3, 2, 2))
    assert not grouping.groups
    assert "uses aten._fft_r2c, which has no rule (" in grouping.whole["first"]


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_recurrent_layers_stay_whole(name):
    model, size = tiny(name)
    grouping = find_groups(model, torch.zeros(1, *size))
    assert any("recurrent" in reason for reason in grouping.whole.values()), grouping.whole
    assert not any("weight_hh" in s.tensor for group in grouping.groups for s in group.slices)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_what_enters_a_recurrent_layer_is_cut(name, tmp_path):
    """A token's embedding: it becomes narrower, and the model is written and read again with the same answers."""
    options = {"vocab_size": 30, "width": 24, "depth": 2, "bidirectional": True, "num_classes": 4}
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    grouping = find_groups(model, torch.zeros(1, 6, dtype=torch.int64))
    (group,) = grouping.groups
    assert group.name == "embed"
    smaller = cut_copy(model, grouping, [keep := np.arange(0, 24, 2)])
    assert (smaller.embed.embedding_dim, smaller.core.input_size, smaller.core.hidden_size) == (12, 12, 24)
    assert check_cut(model, (6,), grouping, [keep]) == ""
    with new_directory(tmp_path / "x", run={}) as work:
        config = ModelConfig(architecture=name, model_args=options, classes=None, preprocess=Preprocess(size=(8, 8)))
        save_model(work, smaller, config)
    tokens = torch.randint(0, 30, (2, 6))
    assert torch.equal(load_model(tmp_path / "x").model(tokens), smaller(tokens))


def test_groups_can_be_read():
    model, size = tiny("vit_tiny")
    groups = {group.name: group for group in find_groups(model, torch.zeros(1, *size)).groups}
    heads = groups["blocks.0.attn.qkv heads"]
    assert str(heads) == "blocks.0.attn.qkv heads: 2 heads of blocks.0.attn.qkv[out], blocks.0.attn.proj[in]"
    assert "blocks.0.attn.qkv.weight[0] 0:96" in heads.describe()
    assert "blocks.0.attn.proj.weight[1] 0:32" in heads.describe()


def test_shared_tensors_stay_shared():
    model = chain(16, 16, 16)
    model[2].weight = model[1].weight
    pruned = prune_channels(model, (3, 1, 1), macs=0.6, round_to=1)
    assert pruned.model[2].weight is pruned.model[1].weight
    assert pruned.model(torch.zeros(1, 3, 1, 1)).shape == (1, 2)
