"""Allocation by what is lost for what is saved: by importance, by measured loss, and under predicted milliseconds."""

import itertools

import numpy as np
import pytest
import torch
from shaken_models import tiny
from torch import nn

from compress.dependency.group import Grouping
from compress.dependency.groups import find_groups
from compress.pruning import latency, sensitivity
from compress.pruning.allocate import allocate, allocate_by_importance, allocate_by_loss, importance_lost, widths_of
from compress.pruning.budget import Cost
from compress.pruning.importance import Random, l2_norm
from compress.pruning.sensitivity import Sensitivity
from compress.pruning.shrink import Shrink
from compress.report import statistics
from transfer.data.loader import LabelledPixels
from zoo.errors import UsageError
from zoo.preprocess import Preprocess

SIZE = (3, 8, 8)


def chain(*widths: int) -> nn.Module:
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in zip((3, *widths), (*widths, 2), strict=False)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1)).eval()


def grouped(model: nn.Module, size: tuple[int, ...] = SIZE) -> Grouping:
    return find_groups(model, torch.empty(1, *size, device="meta"))


@pytest.fixture
def random_case():
    model, size = tiny("resnet18")
    grouping = grouped(model, size)
    return grouping, [Random(1)(model, group).numpy() for group in grouping.groups]


def test_what_a_cut_would_save_is_what_it_saves(random_case):
    """Cut after cut, against the cost counted from the start."""
    grouping, _ = random_case
    cost = Cost.macs(grouping)
    keeps = [np.arange(group.width) for group in grouping.groups]
    spending = cost.spend(keeps)
    rng = np.random.default_rng(0)
    for i in rng.permutation(len(keeps)):
        keeps[i] = np.sort(rng.permutation(len(keeps[i]))[: max(1, len(keeps[i]) // 2)])
        promised = spending.now - spending.saved({i: keeps[i]})
        spending.take({i: keeps[i]})
        assert spending.now == promised == cost.after(keeps)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_by_importance_is_near_the_best_of_all_widths(share):
    """Against every combination of widths of a small network."""
    model = chain(32, 16, 24)
    grouping = grouped(model)
    scores = [Random(3)(model, group).numpy() for group in grouping.groups]
    losses, cost = importance_lost(grouping, scores), Cost.macs(grouping)

    def lost(counts) -> float:
        return sum(loss[count] for loss, count in zip(losses, counts, strict=True))

    keeps = allocate_by_importance(grouping, scores, share=share)
    counts = [len(keep) for keep in keeps]
    assert cost.after(keeps) <= share * cost.total
    affordable = [
        lost(combination)
        for combination in itertools.product(*losses)
        if cost.after([np.arange(n) for n in combination]) <= share * cost.total
    ]
    best, worst = min(affordable), max(affordable)
    assert best <= lost(counts) <= best + 0.25 * (worst - best)
    for keep, score in zip(keeps, scores, strict=True):
        np.testing.assert_array_equal(keep, np.sort(np.argsort(-score)[: len(keep)]))


def test_what_costs_nothing_to_lose_goes_first():
    """A measured table overrules the scores."""
    grouping = grouped(chain(32, 32))
    scores = [np.ones(32), np.ones(32)]
    free, dear = ({n: price * (32 - n) for n in (32, 24, 16, 8)} for price in (0.0, 1.0))
    for losses, kept in (([free, dear], (8, 32)), ([dear, free], (32, 8))):
        keeps = allocate_by_loss(grouping, scores, losses, share=0.5)
        assert tuple(len(keep) for keep in keeps) == kept


@pytest.mark.parametrize("allocation", [allocate, allocate_by_importance])
def test_tied_groups_stay_alike_and_budgets_are_kept(allocation):
    model, size = tiny("vit_tiny")
    grouping = grouped(model, size)
    scores = [Random(2)(model, group).numpy() for group in grouping.groups]
    keeps = allocation(grouping, scores, share=0.6, round_to=2)
    cost = Cost.macs(grouping)
    assert cost.after(keeps) <= 0.6 * cost.total
    for tie in {group.tied for group in grouping.groups} - {None}:
        assert len({len(k) for k, g in zip(keeps, grouping.groups, strict=True) if g.tied == tie}) == 1
    with pytest.raises(UsageError, match=r"1% of the MACs is below what these groups can reach: at least [0-9.]+%"):
        allocation(grouping, scores, share=0.01)


def test_sensitivity_spares_what_the_answers_need(tmp_path, monkeypatch):
    """Two branches, of which the classifier looks at one: the other goes. Losses are measured once."""
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 32, 1), nn.Conv2d(3, 32, 1)
            self.fc, self.other = nn.Linear(32, 4), nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one, other = (layer(x).relu().mean((2, 3)) for layer in (self.used, self.idle))
            return self.fc(one) + self.other(other)

    torch.manual_seed(0)
    model = Branches().eval()
    nn.init.zeros_(model.other.weight)
    with torch.no_grad():
        model.fc.weight.mul_(50)
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (64, 1, 1, 3), dtype=np.uint8)
    pixels = np.broadcast_to(colours, (64, 8, 8, 3)).copy()
    preprocess = Preprocess(size=(8, 8))
    with torch.no_grad():
        inputs = torch.from_numpy(preprocess.normalize(pixels))
        model.fc.bias -= model(inputs).mean(dim=0)  # or one class would have all images
        labels = model(inputs).argmax(dim=1).numpy()
    assert len(np.unique(labels)) > 2
    grouping = grouped(model)
    images = LabelledPixels(pixels, labels)
    scores = [l2_norm(model, group).numpy() for group in grouping.groups]
    losses = Sensitivity(model, images, preprocess).losses(grouping, scores)
    by_name = {group.name: loss for group, loss in zip(grouping.groups, losses, strict=True)}
    assert max(by_name["idle"].values()) < 1e-6 < by_name["used"][8]
    assert list(by_name["used"]) == widths_of(grouping.groups[0], 8, 0.1)
    keeps = Sensitivity(model, images, preprocess)(grouping, scores, share=0.7)
    kept = {group.name: len(keep) for group, keep in zip(grouping.groups, keeps, strict=True)}
    assert kept["idle"] < kept["used"] == 32
    monkeypatch.setattr(sensitivity, "mean_loss", lambda images, preprocess: None)  # nothing is measured now
    assert Sensitivity(model, images, preprocess).losses(grouping, scores) == losses


def test_the_fit_of_latencies_finds_a_known_cost(random_case):
    """Milliseconds made up from operators and widths: networks that were not measured are predicted within 5%."""
    grouping, _ = random_case
    keeps = latency.sampled(grouping, 32, round_to=2, floor=0.1, seed=0)
    rng = np.random.default_rng(0)
    rates = [rng.uniform(0.2, 2.0) * 1e-6 for _ in grouping.products]
    truth = Cost(grouping, grouping.products, rates, fixed=0.3)
    ms = np.array([truth.after(keep) for keep in keeps]) * rng.normal(1.0, 0.01, 32)
    cost, error = latency.fit_cost(grouping, keeps, ms)
    assert error < 0.05
    unseen = latency.sampled(grouping, 12, round_to=2, floor=0.1, seed=1)[1:]
    errors = [abs(cost.after(keep) / truth.after(keep) - 1) for keep in unseen]
    assert np.median(errors) < 0.05
    assert min(cost.rates) >= 0
    assert cost.fixed >= 0


def test_a_table_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(latency, "ROUNDS", 2)
    monkeypatch.setattr(latency, "SECONDS_PER_ROUND", 0.01)
    monkeypatch.setattr(statistics, "DISTURBED", 1.0)  # other tests run beside it
    model = chain(32, 32)
    grouping = grouped(model)
    told: list[tuple[int, int]] = []
    table = latency.latency_table(
        model,
        SIZE,
        grouping,
        threads=1,
        networks=3,
        progress=lambda title, done, total, note: told.append((done, total)),
    )
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1)), "how long it takes is known from the start"
    assert {total for _, total in told} == {told[-1][1]}
    assert (table.ms > 0).all()
    assert table.cost.after(table.keeps[0]) == pytest.approx(table.cost.total)
    monkeypatch.setattr(latency, "measured_ms", None)
    again = latency.latency_table(model, SIZE, grouping, threads=1, networks=3)
    np.testing.assert_array_equal(again.ms, table.ms)


def test_shrinking_is_the_proximal_step_of_the_group_lasso():
    """Against a loop over channels: each norm falls by the same amount, not below zero."""
    model = chain(16, 16).double()
    grouping = grouped(model.float())
    shrink = Shrink(model.double(), grouping, "group-lasso", steps=10, strength=2.0)
    convs = [module for module in model if isinstance(module, nn.Conv2d)]

    def norms(i: int) -> torch.Tensor:
        rows, columns = convs[i].weight.detach(), convs[i + 1].weight.detach()
        return torch.stack([(rows[c].square().sum() + columns[:, c].square().sum()).sqrt() for c in range(16)])

    before = norms(0)
    first = [
        Shrink(model, Grouping((group,), {}, (), ()), "group-lasso", steps=10, strength=2.0)
        for group in grouping.groups
    ]
    first[0](model, 1)
    torch.testing.assert_close(norms(0), (before - 0.2 * before.mean()).clamp(min=0))
    for step in range(20):
        shrink(model, step)
    assert norms(0).max() == 0


def test_shrinking_of_scales():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1), nn.Flatten(1)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([4.0, -4.0, 0.5, 0, 1, 2, 3, 1.5]))
    weight = model[0].weight.clone()
    Shrink(model, grouped(model, (3, 1, 1)), "bn-scale", steps=1, strength=0.5)(model, 1)
    mean = (4 + 4 + 0.5 + 0 + 1 + 2 + 3 + 1.5) / 8
    expected = torch.tensor([4.0 - mean / 2, -(4.0 - mean / 2), 0, 0, 0, 2 - mean / 2, 3 - mean / 2, 1.5 - mean / 2])
    torch.testing.assert_close(model[1].weight.detach(), expected)
    assert torch.equal(model[0].weight, weight)
    with pytest.raises(UsageError, match="no group of this model has a BatchNorm"):
        Shrink(chain(16), grouped(chain(16)), "bn-scale", steps=1)
    with pytest.raises(UsageError, match="unknown penalty 'grouplasso'; did you mean 'group-lasso'"):
        Shrink(chain(16), grouped(chain(16)), "grouplasso", steps=1)
