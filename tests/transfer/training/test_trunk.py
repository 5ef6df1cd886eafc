"""The trunk and the tail of a network together are the network, and views are what training would have seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from transfer.data.augment import NONE, augment_batch, augment_for
from transfer.data.loader import LabelledPixels
from transfer.fitting.methods import tapped
from transfer.training.batch import normalized
from transfer.training.trunk import split
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.files.model_directory import ModelConfig
from zoo.preprocess import Preprocess

PREPROCESS = Preprocess(size=(64, 64))


def network_of(name, *, taps):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).eval()
    config = ModelConfig(architecture=name, model_args={}, classes=None, preprocess=PREPROCESS)
    for module in model.modules():  # statistics and weights that are those of no fresh network
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return tapped(model, config, taps=taps)[0].eval()


@pytest.mark.parametrize("taps", [True, False])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenet_v3_small", "timm:lcnet_050"])
def test_tail_of_trunk_is_the_network(name, taps):
    network = network_of(name, taps=taps)
    images = torch.randn(3, 3, 64, 64)
    trunk = split(network, images[:1])
    assert trunk is not None
    with torch.no_grad():
        wanted, got = network(images), trunk.tail(trunk.enter(images))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * float(wanted.std()))
    assert count_macs(trunk.tail, trunk.shape) <= 0.4 * count_macs(network, (3, 64, 64))
    with torch.no_grad():
        for parameter in trunk.tail.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
        joined = trunk.joined(trunk.tail)
        torch.testing.assert_close(joined(images), trunk.tail(trunk.enter(images)), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(joined(images), wanted)


def test_a_network_that_is_no_chain_has_none():
    class Crossed(nn.Module):
        """Its last part sees the first one's answer beside the one before."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 8, 8))
            self.d, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

        def forward(self, x):
            first = self.a(x)
            return self.fc(self.d(self.c(self.b(first)).relu() + first).mean((2, 3)))

    assert split(Crossed().eval(), torch.randn(1, 3, 16, 16)) is None


def test_views_are_of_the_images_as_training_augments_them():
    network = network_of("tf_efficientnet_lite0", taps=True)
    trunk = split(network, torch.randn(1, 3, 64, 64))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    images, augment = LabelledPixels(pixels, np.arange(5)), augment_for(True)
    found = trunk.views(images, PREPROCESS, augment, [0, 3], first=2, seed=7)
    moved = augment_batch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), np.arange(2, 7), augment, seed=7, epoch=3
    )
    with torch.no_grad():
        wanted = network(normalized(moved, PREPROCESS))
        got = trunk.tail(torch.from_numpy(found[1]).permute(0, 3, 1, 2))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    plain = trunk.views(images, PREPROCESS, NONE, [0])
    with torch.no_grad():
        wanted = network(normalized(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), PREPROCESS))
        got = trunk.tail(torch.from_numpy(plain[0]).permute(0, 3, 1, 2))
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_prepared_images_are_not_recoloured():
    """Colours of what a caller has prepared are not known."""
    torch.manual_seed(0)
    network, prepared = network_of("tf_efficientnet_lite0", taps=False), Preprocess.prepared((3, 64, 64))
    trunk = split(network, torch.zeros(1, 3, 64, 64))
    pixels = np.random.default_rng(0).normal(size=(6, 64, 64, 3)).astype(np.float32)
    colours = replace(NONE, colour=0.9, grey=1.0)
    images = LabelledPixels(pixels, np.zeros(6, dtype=np.int64))
    plain, coloured = (trunk.views(images, prepared, augment, [1]) for augment in (NONE, colours))
    assert np.array_equal(plain, coloured)
