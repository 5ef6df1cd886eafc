"""Scores against the papers' formulas written as loops; rankings against their definitions."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.recovery.masks import attach_masks_, density, nonzeros
from compress.sparsity.gradual import Cubic, Gradual
from compress.sparsity.rank import by_layer, n_of_m, over_network
from compress.sparsity.rate import PerBit
from compress.sparsity.scores import WeightTaylor, lamp, magnitude
from zoo.errors import UsageError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def test_lamp_is_the_papers():
    """Lee et al. 2021, eq. 4: w_u^2 over the sum of w_v^2 of all v that come at or after u in ascending order."""
    scores = lamp(network())
    for name, layer in (("0", network()[0]), ("3", network()[3])):
        weights = layer.weight.detach().flatten().double().numpy()
        order = np.argsort(weights**2)
        for rank, u in enumerate(order):
            expected = weights[u] ** 2 / sum(weights[v] ** 2 for v in order[rank:])
            assert float(scores[name].flatten()[u]) == pytest.approx(expected, rel=1e-5)
    assert max(float(score.max()) for score in scores.values()) == 1.0


def test_lamp_empties_no_layer_where_magnitude_does():
    model = network()
    with torch.no_grad():
        model[0].weight *= 1e-3
    assert not over_network(magnitude(model), 0.05)["0"].any()
    assert over_network(lamp(model), 0.05)["0"].any()


def test_taylor_is_what_the_loss_does_to_first_order():
    """(w dL/dw)^2 against the difference of the loss when one weight is scaled by 1 - h."""
    model = network().double().eval()
    inputs, labels = torch.randn(8, 2, 4, 4, dtype=torch.float64), torch.randint(3, (8,))
    scores = WeightTaylor([(inputs, labels)])(model)["3"]
    with torch.no_grad():
        for index in ((0, 0), (1, 7), (2, 15)):
            weight, losses = float(model[3].weight[index]), []
            for factor in (1 + 1e-5, 1 - 1e-5):
                model[3].weight[index] = weight * factor
                losses.append(float(F.cross_entropy(model(inputs), labels)))
            model[3].weight[index] = weight
            slope = (losses[0] - losses[1]) / 2e-5
            assert float(scores[index]) == pytest.approx(slope**2, rel=1e-4, abs=1e-15)


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_rankings_keep_the_best(share):
    scores = magnitude(network())
    masks = over_network(scores, share)
    kept = torch.cat([scores[name][masks[name]] for name in scores])
    gone = torch.cat([scores[name][~masks[name]] for name in scores])
    assert len(kept) == max(1, round(share * (72 + 48)))
    assert not len(gone) or kept.min() >= gone.max()
    layered = by_layer(scores, share)
    assert [int(mask.sum()) for mask in layered.values()] == [max(1, round(share * n)) for n in (72, 48)]


def test_two_of_four_along_the_inputs():
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1, 0.2, 0.4, -0.3]])
    mask = n_of_m({"a": weight.abs(), "b": torch.rand(4, 6)}, 2, 4)
    assert mask["a"].tolist() == [[False, True, True, False, False, False, True, True]]
    assert mask["b"].all()  # 4 does not divide 6
    kernels = torch.rand(3, 8, 3, 3)
    kept = n_of_m({"c": kernels}, 2, 4)["c"]
    assert (kept.view(3, 2, 4, 3, 3).sum(dim=2) == 2).all()
    with pytest.raises(UsageError, match="5:4 sparsity"):
        n_of_m({}, 5, 4)


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_densities_out_of_range(value):
    with pytest.raises(UsageError, match=r"must be in \(0, 1\]"):
        over_network(magnitude(network()), value)


def test_cubic_is_zhu_and_guptas():
    """Eq. 1 in its own letters: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3, every dt steps."""
    schedule = Cubic(start=1.0, end=0.1, steps=100, every=10)
    for t in range(1, 101):
        s_f, s_i = 0.9, 0.0
        expected = 1 - (s_f + (s_i - s_f) * (1 - t / 100) ** 3)
        assert schedule(t) == (pytest.approx(expected) if t % 10 == 0 else None)
    assert schedule(101) is None
    assert Cubic(start=1.0, end=0.5, steps=7, every=4)(7) == 0.5  # the last cut is not missed
    with pytest.raises(UsageError, match="cannot grow"):
        Cubic(start=0.1, end=0.2, steps=3)


def test_gradual_is_a_function_of_the_model_and_the_step():
    """A copy that comes back from its state dict in the middle ends with the same bits."""
    model = network()
    attach_masks_(model)
    after_step = Gradual(Cubic(1.0, 0.2, 40, 5))

    def run(model, steps):
        for step in steps:
            torch.manual_seed(step)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
            after_step(model, step)

    run(model, range(1, 18))
    copied = network()
    attach_masks_(copied)
    copied.load_state_dict(model.state_dict())
    run(model, range(18, 50))
    Gradual(Cubic(1.0, 0.2, 40, 5))(network(), 3)  # another one's steps leave no trace
    run(copied, range(18, 50))
    assert density(model) == 24 / 120
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copied.parameters(), strict=True))
    assert all(nonzeros(model)[name].any() for name in ("0", "3"))


@pytest.mark.parametrize("free", [0, 5])
def test_what_was_cut_comes_back_where_it_has_grown(free):
    """The smallest weights are cut first; then they grow, unseen or seen, past all others; some may never live."""
    model = network()
    with torch.no_grad():
        model[3].weight.copy_(torch.linspace(0.1, 1, 48).view(model[3].weight.shape))
    attach_masks_(model)
    barred = torch.ones_like(model[3].weight, dtype=torch.bool)
    barred.view(-1)[:2] = False
    after_step = Gradual(Cubic(1.0, 0.5, 20, 10), magnitude, by_layer, free=free, may_live={"3": barred})
    for step in range(1, 31):
        with torch.no_grad():
            model[3].weight.view(-1)[:4] += 1.0 if step > 10 else 0.0
        after_step(model, step)
        if step == 10:
            assert not model[3].weight.view(-1)[:4].any()
    assert nonzeros(model)["3"].view(-1)[:4].tolist() == [False, False, free > 0, free > 0]
    assert int(nonzeros(model)["3"].sum()) == 24


def test_weights_that_are_dear_to_code_go_first():
    """Equal weights: those alone in their row and column go before those among many."""
    scores = torch.zeros(20, 20)
    scores[:8, :8] = 1.0
    scores[15, 15] = 1.0
    masks = {"fc": scores > 0}
    preferred = PerBit()({"fc": scores}, masks)["fc"]
    assert preferred[15, 15] < preferred[:8, :8].min()
    assert torch.equal(PerBit(power=0)({"fc": scores}, masks)["fc"], scores)
    assert not preferred[scores == 0].any()
