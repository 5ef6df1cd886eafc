"""Frozen features: those of the model as it is, computed once for the same network and the same images."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from transfer.data.loader import LabelledPixels
from transfer.frozen.features import features_of, frozen_features
from zoo.classifier import features as classifier_inputs
from zoo.classifier import reset_classifier_
from zoo.create import create_model
from zoo.folding import folded
from zoo.models.lenet import TINY as LENET
from zoo.models.registry import model_entry
from zoo.preprocess import Preprocess

GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
TINY = [e for e in map(model_entry, zoo.list_models()) if e.kind == "classifier" and e.tiny is not None]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    return tmp_path


def images(count, size=(28, 28), channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, channels), dtype=np.uint8)


def lenet():
    torch.manual_seed(0)
    return create_model("lenet5", **LENET["lenet5"])


class Asked:
    """frozen_features, and whether it took a forward pass."""

    def __init__(self):
        self.told = []

    def __call__(self, model, data, preprocess=GREY):
        self.told.clear()
        return frozen_features(model, data, preprocess, progress=lambda *line: self.told.append(line))


@pytest.fixture
def ask():
    return Asked()


def plain(model, pixels, preprocess):
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return classifier_inputs(model, torch.from_numpy(preprocess.normalize(pixels))).numpy()


def test_second_time_from_the_disk(ask):
    model, data = lenet(), LabelledPixels(images(300), np.zeros(300, dtype=np.int64))
    first = ask(model, data)
    assert ask.told[-1] == ("features", 300, 300, "")
    np.testing.assert_allclose(first, plain(model, data.pixels, GREY), rtol=1e-4, atol=1e-5)
    second = ask(model, data)
    assert not ask.told
    assert second.tobytes() == first.tobytes()
    assert isinstance(second, np.memmap)
    assert not second.flags.writeable


def test_what_they_depend_on(ask):
    model, data = lenet(), LabelledPixels(images(10), np.zeros(10, dtype=np.int64))

    def is_kept(network, pixels=data, preprocess=GREY):
        ask(network, pixels, preprocess)
        return not ask.told

    assert not is_kept(model)
    assert is_kept(model)
    assert is_kept(lenet(), replace(data, labels=data.labels + 1))  # another object, other labels
    other = data.pixels.copy()
    other[0, 0, 0] ^= 255
    assert not is_kept(model, replace(data, pixels=other))
    assert not is_kept(model, preprocess=replace(GREY, mean=(0.4,)))
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] += 0.5
    assert not is_kept(model)
    assert is_kept(model)


def test_settings_without_weights_count(ask):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    data = LabelledPixels(images(10), np.zeros(10, dtype=np.int64))
    before = ask(model, data)
    model[1].negative_slope = 0.5
    assert not np.array_equal(ask(model, data), before)


def test_classifier_and_mode_do_not_count(ask):
    model, data = lenet(), LabelledPixels(images(10), np.zeros(10, dtype=np.int64))
    ask(model, data)
    reset_classifier_(model, 77)
    ask(model.train(), data)
    assert not ask.told


def test_digest_stands_for_the_pixels(ask):
    model, labels = lenet(), np.zeros(10, dtype=np.int64)
    first = ask(model, LabelledPixels(images(10), labels, digest="one"))
    np.testing.assert_array_equal(ask(model, LabelledPixels(images(10, seed=1), labels, digest="one")), first)
    assert not ask.told  # nobody looked at them
    ask(model, LabelledPixels(images(10), labels, digest="two"))
    assert ask.told


def test_unwritable_cache_is_no_error(ask, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", "/dev/null/nowhere")
    data = LabelledPixels(images(10), np.zeros(10, dtype=np.int64))
    for _ in range(2):
        np.testing.assert_allclose(ask(lenet(), data), plain(lenet(), data.pixels, GREY), rtol=1e-4, atol=1e-5)
        assert ask.told


@pytest.mark.parametrize("entry", TINY, ids=lambda entry: entry.name)
def test_every_familys_are_those_of_the_plain_model(entry):
    torch.manual_seed(0)
    model = create_model(entry.name, **entry.tiny)
    randomize_norms_(model)
    channels, side = entry.input_size[0], entry.tiny.get("image_size", min(entry.input_size[-1], 64))
    grey = {"mean": (0.5,), "std": (0.5,)} if channels == 1 else {}
    preprocess, pixels = Preprocess(size=(side, side), **grey), images(3, (side, side), channels)
    model.train()
    next(iter(model.children())).eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found, expected = features_of(model, pixels, preprocess), plain(model, pixels, preprocess)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert [module.training for module in model.modules()] == modes  # the caller's model is left alone
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


class Shared(nn.Module):
    """A convolution whose output goes to a norm and past it: the norm must not be put into it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.conv(x)
        return self.head((self.norm(y).relu() + y).mean(dim=(2, 3)))


class Twice(nn.Module):
    """A convolution that is called twice, before two norms."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(1, 2)
        self.norms = nn.ModuleList([nn.BatchNorm2d(1), nn.BatchNorm2d(1)])

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.conv(x))
        return self.head(x.mean(dim=(2, 3)))


class ReluBetween(nn.Module):
    """A ReLU in place between a convolution and a norm: the norm's input is the convolution's own tensor, changed."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x).relu_()).mean(dim=(2, 3)))


def randomize_norms_(model):
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.2, 0.2, generator=generator)


@pytest.mark.parametrize("build", [Shared, Twice, ReluBetween])
def test_norms_that_cannot_be_folded(build):
    torch.manual_seed(0)
    model, pixels = build(), images(6)
    randomize_norms_(model)
    np.testing.assert_allclose(features_of(model, pixels, GREY), plain(model, pixels, GREY), rtol=1e-4, atol=1e-5)


def test_views_of_fractional_pixels():
    model, pixels = lenet(), images(5)
    half = features_of(model, pixels.astype(np.float32) / 2, GREY)
    expected = plain(model, pixels, replace(GREY, mean=(1.0,), std=(1.0,)))  # (p / 2 - 127.5) / 127.5 = p / 255 - 1
    np.testing.assert_allclose(half, expected, rtol=1e-4, atol=1e-5)
    assert features_of(model, pixels[:0], GREY).shape == (0, half.shape[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_computes_the_same():
    model, pixels = lenet(), images(50)
    expected = plain(model, pixels, GREY)
    found = features_of(model.cuda(), pixels, GREY)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())  # tf32


def test_folding_does_happen():
    """Not a matter of answers but of time: no BatchNorm is left in the network that is run."""
    torch.manual_seed(0)
    model = create_model("resnet18", **next(e.tiny for e in TINY if e.name == "resnet18")).eval()
    randomize_norms_(model)
    found = folded(model, torch.randn(2, 3, 64, 64))
    assert not [m for m in found.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


class TwoHeads(nn.Module):
    """As distilled networks are: the mean of two classifiers' logits."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head, self.head_dist = nn.Linear(8, 5), nn.Linear(8, 5)

    def get_classifier(self):
        return self.head, self.head_dist

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        return (self.head(x) + self.head_dist(x)) / 2


def test_folding_of_a_network_with_two_classifiers():
    torch.manual_seed(0)
    model, inputs = TwoHeads().eval(), torch.randn(2, 3, 16, 16)
    randomize_norms_(model)
    found = folded(model, inputs)
    assert not [m for m in found.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(found(inputs), model(inputs), rtol=1e-4, atol=1e-5)
