"""A prototype's network, which sees several depths through hooks, goes through every step like any other."""

import numpy as np
import pytest
import torch
from shaken_models import shake_

from compress.dependency.groups import find_groups
from compress.graph.network import export_network
from compress.pruning.structured import prune_channels
from compress.quantization.ptq import quantize_static
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, load_model, save_model
from zoo.models.registry import model_entry
from zoo.models.tapped import tap
from zoo.preprocess import Preprocess

SIZE = (3, 64, 64)


def tapped(name):
    options = dict(model_entry(name).tiny)
    taps = tap(create_model(name, **options), torch.zeros(1, *SIZE))
    return shake_(create_model(name, **options, taps=taps).eval()), {**options, "taps": taps}


def test_tapped_is_pruned_saved_loaded_and_quantized(tmp_path):
    model, options = tapped("tf_efficientnet_lite0")
    pruned = prune_channels(model, SIZE, macs=0.6, round_to=2)
    assert pruned.macs_after == count_macs(pruned.model, SIZE) <= 0.6 * pruned.macs_before
    config = ModelConfig(
        architecture="tf_efficientnet_lite0", model_args=options, classes=None, preprocess=Preprocess(size=SIZE[1:])
    )
    with new_directory(tmp_path / "pruned", run={}) as work:
        save_model(work, pruned.model, config)
    loaded = load_model(tmp_path / "pruned").model
    images = torch.randn(8, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(images), pruned.model(images))
    quantized = quantize_static(export_network(loaded, SIZE), [images.numpy()])
    assert quantized.int8_layers == quantized.layers > 10


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vit_tiny", "resnet18"])
def test_tapped_cut_is_mask(name, assert_cut_is_mask):
    """Also where a map is as wide as its channels were many: the list of channels shrinks with them."""
    if name == "vit_tiny":
        options = dict(model_entry(name).tiny)
        model = shake_(create_model(name, **options, taps={"blocks.0": options["width"]}).eval())
        assert_cut_is_mask(model, (3, options["image_size"], options["image_size"]))
        return
    model, options = tapped(name)
    smaller = assert_cut_is_mask(model, SIZE)
    assert sum(smaller.channels) < sum(options["taps"].values())
    grouping = find_groups(model, torch.zeros(1, *SIZE))
    assert np.any([s.module == "classifier" for group in grouping.groups for s in group.slices])
