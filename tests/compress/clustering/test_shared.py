"""k-means against brute force, tied training against the gradient of a tied model, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from compress.clustering.cluster import ADAPTING, Sharing, shared_alone, values_for_bits
from compress.clustering.kmeans import kmeans, linear_centroids, nearest
from compress.clustering.shared import (
    check_shared,
    codes_of,
    detach_codes_,
    different_values,
    rounded,
    share_,
    share_again_,
    shareable,
    tie_,
)
from zoo.errors import SlimzooError, UsageError


def test_linear_initialization():
    np.testing.assert_allclose(linear_centroids(np.array([3.0, -1.0, 0.0]), 3), [-1, 1, 3])


def test_kmeans_is_lloyds():
    """Written as loops, from the same start."""
    values = np.random.default_rng(0).normal(size=60)
    centroids = np.linspace(values.min(), values.max(), 5)
    for _ in range(100):
        nearest = [min(range(5), key=lambda k, v=v: (v - centroids[k]) ** 2) for v in values]
        centroids = np.array([np.mean([v for v, k in zip(values, nearest, strict=True) if k == c]) for c in range(5)])
    found, codes = kmeans(values, 5)
    np.testing.assert_allclose(found, centroids, rtol=1e-6)
    assert codes.tolist() == nearest


def test_two_groups_that_are_apart_are_found_exactly():
    """The best of all divisions, by trying each."""
    values = np.array([0.1, 0.12, 0.2, 0.9, 1.1, 1.0])

    def spread(part):
        return sum((v - np.mean(part)) ** 2 for v in part)

    ordered = sorted(values)
    best = min(range(1, 6), key=lambda cut: spread(ordered[:cut]) + spread(ordered[cut:]))
    centroids, _ = kmeans(values, 2)
    np.testing.assert_allclose(centroids, [np.mean(ordered[:best]), np.mean(ordered[best:])])


def test_a_price_for_bits_lowers_the_entropy():
    values = np.random.default_rng(0).normal(size=2000)

    def entropy(codes):
        shares = np.bincount(codes) / len(codes)
        return -sum(p * np.log2(p) for p in shares if p)

    entropies = [entropy(kmeans(values, 9, bit_price=price)[1]) for price in (0.0, 0.05, 0.2)]
    assert entropies[0] > entropies[1] > entropies[2]


def test_fewer_values_than_centroids():
    centroids, codes = kmeans(np.array([1.0, 1.0, 2.0]), 16)
    np.testing.assert_allclose(centroids[codes], [1, 1, 2])
    assert len(centroids) == 2
    with pytest.raises(ValueError, match="at least one of each"):
        kmeans(np.array([]), 2)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[:, ::3] = 0.0
    return model


def test_sharing_leaves_zeros_and_few_values():
    model = network()
    zeros = model[0].weight == 0
    share_(model, {"0.weight": 4, "2.weight": 2, "2.bias": 1})
    assert different_values(model[0].weight) <= 4
    assert different_values(model[2].weight) == 2
    assert different_values(model[2].bias) == 1
    assert torch.equal(model[0].weight == 0, zeros)
    assert codes_of(model).keys() == {"0.weight", "2.weight", "2.bias"}
    detach_codes_(model)
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_tied_steps_are_gradient_descent_on_the_shared_values():
    """A step and the mean, against autograd on the centroids themselves, their rates divided by the sharers."""
    model = network().double()
    share_(model, {"0.weight": 3})
    code = codes_of(model)["0.weight"].long()
    centroids = torch.stack([model[0].weight[code == k].mean() for k in range(1, 4)]).detach().requires_grad_()
    inputs = torch.randn(5, 6, dtype=torch.float64)
    tied = torch.cat([torch.zeros(1, dtype=torch.float64), centroids])[code]
    hidden = torch.relu(inputs @ tied.T + model[0].bias.detach())
    (hidden @ model[2].weight.detach().T + model[2].bias.detach()).square().sum().backward()
    sharers = torch.stack([(code == k).sum() for k in range(1, 4)])
    expected = centroids.detach() - 0.01 * centroids.grad / sharers

    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.01)
    model(inputs).square().sum().backward()
    optimizer.step()
    tie_(model)
    for k in range(1, 4):
        np.testing.assert_allclose(model[0].weight[code == k].detach().numpy(), float(expected[k - 1]), rtol=1e-9)
    assert not model[0].weight[code == 0].any()


def test_lost_sharing_is_refused():
    for change, said in (((0, 1), "different values and shared"), ((0, 0), "lost 1 of its 16 zeros")):
        model = network()
        share_(model, {"0.weight": 3})
        check_shared(model, codes_of(model))
        with torch.no_grad():
            model[0].weight[change] += 1e-3
        with pytest.raises(SlimzooError, match=f"{said}.*tie_ after each step"):
            detach_codes_(model)


def test_rounding_is_to_the_nearest():
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    for mantissa in (2, 6, 23):
        found = rounded(values, mantissa).double().numpy()
        fraction, exponent = np.frexp(values.double().numpy())
        scale = 2.0 ** (mantissa + 1)
        expected = np.ldexp(np.floor(np.abs(fraction) * scale + 0.5) / scale * np.sign(fraction), exponent)
        np.testing.assert_array_equal(found, expected if mantissa < 23 else values.double().numpy())


def test_sensitive_tensors_get_more_values():
    """A loss that feels the first layer alone: it keeps the most, the others go down first."""
    model = network()
    whole = {name: tensor.detach().clone() for name, tensor in shareable(model).items()}

    def loss(changed):
        return float((shareable(changed)["0.weight"].detach() - whole["0.weight"]).square().sum())

    given = values_for_bits(model, 5.0, loss, ladder=(2, 4, 8))
    assert given["0.weight"].values == 8
    assert given["2.weight"].values == 2
    assert given["0.weight"].loss_rise == loss(shared_alone(model, "0.weight", 8)) > 0
    assert given["2.weight"].loss_rise == 0
    assert given["2.weight"].living == (whole["2.weight"] != 0).sum()
    living = sum(tensor.living for tensor in given.values())
    assert sum(tensor.bits for tensor in given.values()) <= 5.0 * living
    assert torch.equal(model[0].weight, whole["0.weight"])
    with pytest.raises(UsageError, match="cannot be reached: 2 values for each tensor take"):
        values_for_bits(model, 0.5, loss)
    with torch.no_grad():
        for tensor in shareable(model).values():
            tensor.zero_()
    with pytest.raises(UsageError, match="nothing to share"):
        values_for_bits(model, 4.0, loss)


@pytest.mark.parametrize("price", [0.0, 0.02, 0.3])
def test_cheapest_centroids_are_the_cheapest_of_all(price):
    """Squared distance + price, all of them tried."""
    generator = np.random.default_rng(1)
    for count in (1, 2, 5, 40):
        values = generator.normal(size=300)
        centroids = np.sort(generator.normal(size=count))
        centroids[count // 2] = centroids[0]  # two that are equal
        centroids.sort()
        prices = price * generator.exponential(size=count)
        cost = (values[:, None] - centroids) ** 2 + prices
        found = nearest(values, centroids, prices if price else None)
        np.testing.assert_allclose(cost[np.arange(300), found], cost.min(axis=1), rtol=1e-9)


def test_small_steps_add_up_until_a_weight_changes_its_value():
    """Straight through, written out: the unshared weights take the steps, and each is given the nearest mean."""
    model = network().double()
    latent = model[0].weight.detach().clone()
    alive = latent != 0
    share_(model, {"0.weight": 3})
    first = codes_of(model)["0.weight"].clone()
    for step in range(60):
        push = 0.01 * torch.randn(latent.shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        before = codes_of(model)["0.weight"].clone()
        with torch.no_grad():
            model[0].weight += push
        latent += push * alive
        share_again_(model)
        means = np.array([float(latent[before == k].mean()) for k in range(1, 4)])
        expected = means[np.abs(latent[alive].numpy()[:, None] - means).argmin(axis=1)]
        np.testing.assert_allclose(model[0].weight[alive].detach().numpy(), expected, rtol=1e-9)
        assert not model[0].weight[~alive].any()
    assert (codes_of(model)["0.weight"] != first).any()
    detach_codes_(model)
    assert different_values(model[0].weight) <= 3


def test_dear_values_lose_their_weights():
    shared = []
    for price in (0.0, 0.5):
        model = network()
        share_(model, {"0.weight": 12})
        for _ in range(20):
            share_again_(model, bit_price=price)
        shared.append(different_values(model[0].weight))
    assert shared[0] == 12 > shared[1]


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_which_value_is_fixed_in_the_end(steps):
    """In the last quarter only the values move."""
    sharing, model = Sharing(0.0, round(ADAPTING * steps)), network()
    share_(model, {"0.weight": 4})
    torch.manual_seed(0)
    for step in range(1, steps + 1):
        before = codes_of(model)["0.weight"].clone()
        with torch.no_grad():
            model[0].weight += 0.3 * torch.randn_like(model[0].weight)
        sharing(model, step)
        if step > 0.75 * steps + 0.5:
            assert torch.equal(codes_of(model)["0.weight"], before)
        assert different_values(model[0].weight) <= 4
