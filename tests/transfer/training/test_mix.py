"""Mixup and CutMix against loops over pixels and torchvision's own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from transfer.training.mix import mix_batch

B, K, H, W = 6, 5, 9, 14
INPUTS = torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(0)) + torch.arange(B).view(-1, 1, 1, 1)
LABELS = torch.tensor([0, 1, 2, 3, 4, 1])
NAMES = torch.arange(B).view(B, 1, 1, 1).expand(B, 1, H, W).float()  # each image is its own number


def mix(inputs=INPUTS, labels=LABELS, **how):
    return mix_batch(inputs, labels, **({"classes": K, "mixup": 0.0, "cutmix": 0.0, "seed": 0, "step": 0} | how))


def test_off_is_the_identity():
    inputs, targets = mix()
    assert inputs is INPUTS
    assert torch.equal(targets, F.one_hot(LABELS, K).float())


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_mixup_is_a_blend_with_one_partner_in_one_share(alpha):
    for step in range(8):
        names, targets = mix(NAMES.double(), mixup=alpha, step=step)
        mixed, _ = mix(mixup=alpha, step=step)
        # with B one-hot "images" the weights of the blend can be read off
        weights = mix(torch.eye(B).view(B, B, 1, 1), mixup=alpha, step=step)[0].view(B, B).double()
        torch.testing.assert_close(weights.sum(1), torch.ones(B).double())
        torch.testing.assert_close(names[:, 0, 0, 0], weights @ torch.arange(B).double(), rtol=1e-5, atol=1e-5)
        for i in range(B):
            expected = sum(float(weights[i, j]) * INPUTS[j] for j in range(B))
            torch.testing.assert_close(mixed[i], expected, rtol=1e-5, atol=1e-5)
            target = sum(float(weights[i, j]) * F.one_hot(LABELS[j], K) for j in range(B))
            torch.testing.assert_close(targets[i].float(), target, rtol=1e-5, atol=1e-5)
        assert (weights.sum(0) - 1).abs().max() < 1e-6  # a permutation: each image is somebody's partner
        assert len({round(float(w), 5) for w in weights.flatten() if 0 < w < 1}) <= 2  # l and 1 - l


def test_shares_of_mixup_follow_their_beta_distribution():
    shares = []
    for step in range(400):
        weights = mix(torch.eye(B).view(B, B, 1, 1), mixup=0.4, step=step)[0].view(B, B)
        shares.append(float(weights[0, 0]) if weights[0, 0] < 1 else np.nan)
    shares = np.array(shares)
    shares = shares[~np.isnan(shares)]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1))
    assert abs(shares[shares > 0].mean() - 0.5) < 0.06
    assert abs(shares.var() - 1 / (4 * 1.8)) < 0.02


def test_cutmix_pastes_one_box_and_counts_its_pixels():
    seen = set()
    for step in range(40):
        names, targets = mix(NAMES, cutmix=1.0, step=step)
        for i in range(B):
            pasted = names[i, 0] != i
            others = set(names[i, 0][pasted].tolist())
            assert len(others) <= 1
            share = float(pasted.float().mean())
            expected = (1 - share) * F.one_hot(LABELS[i], K).float()
            if others:
                rows, columns = (axis.flatten() for axis in torch.where(pasted))
                height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
                assert height * width == int(pasted.sum())  # a full box
                expected += share * F.one_hot(LABELS[int(others.pop())], K).float()
                seen.add((height, width))
                torch.testing.assert_close(targets[i], expected, rtol=1e-5, atol=1e-6)
        mixed, _ = mix(cutmix=1.0, step=step)
        for i in range(B):
            for j in range(B):
                where = (names[i, 0] == j)[None].expand(3, H, W)
                assert torch.equal(mixed[i][where], INPUTS[j][where])
    assert len(seen) > 10


def test_boxes_are_torchvisions(monkeypatch):
    """The same share and centre give the same box and targets."""
    from torchvision.transforms import v2

    class Drawn:
        """A generator whose numbers are known, and the same ones for torchvision."""

        def beta(self, a, b):
            return 0.3

        def integers(self, high):
            return {H: 2, W: 11}[high]

        def permutation(self, count):
            return np.roll(np.arange(count), 1)  # torchvision's partner is the image before

    monkeypatch.setattr("transfer.training.mix.np.random.default_rng", lambda key: Drawn())
    found, targets = mix(cutmix=1.0)
    cut = v2.CutMix(num_classes=K)
    monkeypatch.setattr(cut._dist, "sample", lambda *_: torch.tensor(0.3))
    centres = iter([torch.tensor([11]), torch.tensor([2])])
    monkeypatch.setattr("torchvision.transforms.v2._augment.torch.randint", lambda *_, **__: next(centres))
    expected, expected_targets = cut(INPUTS, LABELS)
    assert torch.equal(found, expected)
    torch.testing.assert_close(targets, expected_targets)

    found, targets = mix(mixup=1.0)
    up = v2.MixUp(num_classes=K)
    monkeypatch.setattr(up._dist, "sample", lambda *_: torch.tensor(0.3))
    expected, expected_targets = up(INPUTS, LABELS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(targets, expected_targets)


def test_with_both_on_each_step_draws_one_of_them():
    kinds = Counter()
    for step in range(200):
        names, _ = mix(NAMES, mixup=1.0, cutmix=1.0, step=step)
        kinds["cutmix" if torch.equal(names, names.round()) else "mixup"] += 1
    assert 70 < kinds["cutmix"] < 130


def test_it_is_a_function_of_seed_and_step_alone():
    for how in ({"mixup": 1.0}, {"cutmix": 1.0}):
        first = mix(**how, seed=4, step=7)
        torch.manual_seed(5)
        np.random.seed(5)
        again = mix(**how, seed=4, step=7)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, mix(**how, seed=4, step=8), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, mix(**how, seed=5, step=7), strict=True))


@pytest.mark.parametrize("how", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_inputs_are_left_alone_and_stay_channels_last(how):
    inputs = INPUTS.contiguous(memory_format=torch.channels_last)
    before = inputs.clone()
    mixed, targets = mix(inputs, **how, step=3)
    assert torch.equal(inputs, before)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(targets.sum(1), torch.ones(B))


def test_one_image_alone_stays_as_it_is():
    mixed, targets = mix(INPUTS[:1], LABELS[:1], mixup=1.0, cutmix=1.0)
    torch.testing.assert_close(mixed, INPUTS[:1])
    torch.testing.assert_close(targets, F.one_hot(LABELS[:1], K).float())
