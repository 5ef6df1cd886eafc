"""Of a recovery on few images as much is kept as brings the answers back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from compress import prune
from compress.pruning.recover import SHARES, kept_of
from transfer.fitting.step import fit
from transfer.training.average import averaged
from zoo.files.model_directory import load_model
from zoo.preprocess import Preprocess

PREPROCESS = Preprocess(size=(8, 8))


def layer(value):
    network = nn.Linear(2, 2, bias=False)
    nn.init.constant_(network.weight, value)
    return network


class Held:
    """Images by each of which a network's answers are as far away as its weight is from a number, and noise."""

    images = 20

    def __init__(self, best, noise=0.0):
        self.best, self.noise = best, noise

    def divergences_of(self, network, preprocess):
        assert preprocess is PREPROCESS
        weight = float(network.weight.detach()[0, 0])
        rng = np.random.default_rng(round(1000 * weight))
        return abs(weight - self.best) + 10 + self.noise * rng.normal(size=self.images)


@pytest.mark.parametrize("share", [0.0, *SHARES])
def test_the_nearest_share_is_kept(share):
    found = kept_of(layer(0.0), layer(1.0), Held(share), PREPROCESS)
    assert found.share == share
    assert found.divergences == {each: pytest.approx(10 + abs(each - share)) for each in (0.0, *SHARES)}
    assert ("is not kept" in str(found)) == (share == 0)
    assert f"{found.divergences[1.0]:.3f} after" in str(found)


def test_what_images_do_not_agree_on_is_not_kept():
    assert kept_of(layer(0.0), layer(1.0), Held(0.002, noise=5.0), PREPROCESS).share == 0


def test_weights_on_the_line():
    start, trained = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    trained[1].num_batches_tracked += 7
    mean = averaged(start, trained, 0.25).state_dict()
    for name, tensor in trained.state_dict().items():
        wanted = 0.75 * start.state_dict()[name] + 0.25 * tensor if tensor.is_floating_point() else tensor
        assert torch.allclose(mean[name], wanted), name


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "m"
    return fit(photos, model="lenet5", method="scratch", size=28, batch=8, epochs=3, seed=1, out=out).out


@pytest.mark.parametrize("best", [0.0, 0.5, 1.0])
def test_the_model_and_its_judge_keep_the_same_share(fitted, photos, tmp_path, monkeypatch, best):
    """What the judge has decided; where nothing is kept, nothing is trained on all images either."""
    trained = []

    def kept(start, after, held, preprocess):
        shares = iter([0.0, *SHARES])

        class Told:
            images = 9

            def divergences_of(self, network, preprocess):
                return abs(next(shares) - best) + np.full(self.images, 0.1)

        return kept_of(start, after, Told(), preprocess)

    monkeypatch.setattr("compress.pruning.step.kept_of", kept)
    step = prune(
        fitted,
        data=photos,
        macs=0.6,
        recover=2,
        round_to=1,
        out=tmp_path / "m",
        progress=lambda what, done, steps, note: trained.append(done) if what == "recovery" else None,
    )
    assert step.record["kept"]["share"] == best
    plain = prune(fitted, data=photos, macs=0.6, recover=0, round_to=1)
    alike = [
        torch.equal(a, b)
        for network, other in ((step.model, plain.model), (step.judge, plain.judge))
        for a, b in zip(network.parameters(), other.parameters(), strict=True)
    ]
    assert all(alike) if best == 0 else not any(alike)
    restarts = sum(later < earlier for earlier, later in itertools.pairwise(trained))
    assert restarts == (0 if best == 0 else 1)
    assert load_model(tmp_path / "m").config.lineage[-1]["kept"]["images"] == 9
