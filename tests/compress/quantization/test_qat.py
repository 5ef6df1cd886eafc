"""Training with rounded weights and activations: the grid, its gradient, and what becomes of it in the file."""

from __future__ import annotations

import importlib.util
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from compress.cli import app
from compress.deployment.export import network_of
from compress.graph.layers import weights_by_layer
from compress.graph.network import export_network
from compress.quantization.ptq import zero_weights
from compress.quantization.qat import OnGrid, prepare, train_quantized
from compress.quantization.step import quantize
from compress.recovery.recipe import recovery_recipe
from transfer.data.loader import LabelledPixels
from transfer.fitting.step import fit
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo.create import create_model
from zoo.errors import Interrupted, UsageError
from zoo.files.model_directory import load_model
from zoo.folding import folded
from zoo.preprocess import Preprocess

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def dense(three, resnet8, tmp_path_factory):
    """A ResNet that tells 3 colours."""
    out = tmp_path_factory.mktemp("qat") / "dense"
    fit(three, model=resnet8, method="scratch", size=32, epochs=4, val=0.2, test=0.2, out=out)
    return out


def on_grid(weight, bits):
    grid = OnGrid(quant_max=(1 << (bits - 1)) - 1)
    grid.start_(weight)
    return grid


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (6, 7)])
def test_rounding_is_torchs_and_passes_the_gradient_inside_the_grid(shape, bits):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grid = on_grid(weight, bits)
    got = grid(weight)
    step, zero = grid.calculate_qparams()
    expected = torch.fake_quantize_per_channel_affine(weight, step.detach(), zero.int(), 0, -grid.levels, grid.levels)
    torch.testing.assert_close(got, expected)
    up = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    multiples = (weight / grid.scale).abs()
    inside, clear = multiples < grid.levels, (multiples - grid.levels).abs() > 1e-4  # Esser et al. 2020, eq. 5
    found = torch.autograd.grad(got, weight, up)[0]
    assert inside.any()
    torch.testing.assert_close(found[clear], (up * inside)[clear], rtol=1e-5, atol=1e-6)


def test_the_steps_gradient_is_that_of_learned_step_sizes():
    """Esser et al. 2020, eq. 3: round(v) - v inside the grid, its end outside, times 1 / sqrt(N Q)."""
    weight = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    grid = on_grid(weight, 3)
    grid(weight).sum().backward()
    step = grid.scale.numpy().astype(np.float64)
    v = weight.numpy().astype(np.float64) / step
    inside = np.where(np.abs(v) < 3, np.rint(v) - v, np.sign(v) * 3)
    expected = inside.sum(axis=1, keepdims=True) / np.sqrt(50 * 3) * step  # of the exponential, at 0
    assert (np.abs(v) > 3).any()
    np.testing.assert_allclose(grid.stretch.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_zeros_stay_whatever_is_learned():
    weight = torch.randn(4, 9) * (torch.arange(36).reshape(4, 9) % 2)
    grid = on_grid(weight, 4)
    moved = weight + 1.0
    assert (grid(moved)[weight == 0] == 0).all()
    assert (grid(moved)[weight != 0] != 0).any()


def test_with_eight_bits_the_prepared_network_is_near_for_any_batch():
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=4, width=8).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.1)
    exact = folded(model, torch.randn(2, *SIZE))
    images = torch.randn(8, *SIZE)
    rounding = prepare(exact, images, bits=8)
    rounding.train()
    rounding(images)  # takes the ranges
    rounding.eval()
    with torch.no_grad():
        got, expected = rounding(images), model(images)
        assert 0 < (got - expected).norm() < 0.1 * expected.norm()
        for n in (1, 3):
            torch.testing.assert_close(rounding(images[:n]), got[:n])
    assert len(list(rounding.weights())) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())


@pytest.mark.parametrize("name", ["resnet20", "vit_tiny"])
def test_what_was_trained_is_what_the_exported_network_has(name):
    torch.manual_seed(0)
    small = {"width": 8} if name == "resnet20" else {"image_size": 32, "patch_size": 8, "depth": 1}
    model = create_model(name, num_classes=3, **small).eval()
    rng = np.random.default_rng(0)
    part = LabelledPixels(rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8), np.arange(16) % 3)
    data = TrainingData(part, None, Preprocess(size=(32, 32)))
    trained = train_quantized(
        model, data, Recipe(epochs=1, lr=1e-3, backbone_lr=1e-3, batch=8, weight_decay=0.0), bits=3
    )
    network = export_network(trained.model, SIZE)
    roundings = trained.roundings(network)
    assert len(roundings) == len(trained.grids) > 3
    for rounded in roundings.values():
        grid = rounded.grid
        channels = np.moveaxis(rounded.weight, grid.axis, 0).reshape(len(grid.scale), -1)
        multiples = channels / grid.scale[:, None]
        np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-4)
        assert np.abs(multiples).max() < 3.5


def test_the_command_trains_and_what_the_file_holds_is_on_few_values(dense, three, tmp_path):
    out = tmp_path / "int2"
    given = ["quantize", str(dense), "--data", str(three), "--bits", "2"]
    done = CliRunner().invoke(app, [*given, "--epochs", "2", "--keep", "fc", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    weights = weights_by_layer(network_of(out / "model.onnx"))
    for name, weight in weights.items():
        for channel in weight:
            assert (len(np.unique(channel)) <= 3) == (name != "fc"), name
    shown = CliRunner().invoke(app, [*given, "--epochs", "1", "--out", str(tmp_path / "again")])
    assert "trained with rounding" in shown.output


def test_interrupted_and_resumed_it_ends_with_the_same_bits(dense, three, tmp_path):
    given = {"data": three, "bits": 3, "epochs": 2}
    quantize(dense, **given, out=tmp_path / "whole")

    def stop(title, done, total, note):
        if title == "quantized training" and done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        quantize(dense, **given, out=tmp_path / "again", progress=stop)
    done = CliRunner().invoke(app, ["resume", str(tmp_path / "again"), "--json"])
    assert done.exit_code == 0, done.output
    whole, again = (network_of(tmp_path / name / "model.onnx") for name in ("whole", "again"))
    assert whole.graph == again.graph


def test_zeros_of_a_sparse_model_are_zeros_of_the_file(dense):
    loaded = load_model(dense)
    rng = np.random.default_rng(0)
    part = LabelledPixels(rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8), np.arange(16) % 3)
    data = TrainingData(part, None, loaded.config.preprocess)
    with torch.no_grad():
        for module in loaded.model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[torch.rand_like(module.weight) < 0.7] = 0.0
    zeros, _ = zero_weights(export_network(loaded.model, SIZE))
    recipe = recovery_recipe(loaded.config, mirror=False, epochs=1, seed=0)
    network = export_network(train_quantized(loaded.model, data, recipe, bits=4).model, SIZE)
    before, after = weights_by_layer(export_network(loaded.model, SIZE)), weights_by_layer(network)
    assert zeros > 0.6 * zero_weights(network)[1]
    assert all((after[name][weight == 0] == 0).all() for name, weight in before.items())


def test_without_torchao_one_line_says_what_to_install(dense, three, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torchao" else found(name, *a))
    with pytest.raises(UsageError, match=r"pip install 'slimzoo\[qat\]'"):
        quantize(dense, data=three, epochs=1, out=tmp_path / "none")
    assert not os.path.exists(tmp_path / "none")
