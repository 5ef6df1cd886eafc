"""Recipes: what they refuse, what they survive, and what they take for a dataset."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import get_args

import numpy as np
import pytest
import torch

from transfer.data.augment import Augment
from transfer.data.loader import LabelledPixels
from transfer.data.parts import Pixels
from transfer.fitting.step import recipe_for
from transfer.training.optim import OPTIMIZERS, SCHEDULES
from transfer.training.recipe import STANDARD_RATES, OptimizerName, Recipe, ScheduleName
from zoo.create import create_model
from zoo.errors import UsageError
from zoo.files.model_directory import ModelConfig
from zoo.preprocess import Preprocess

SIZES = (1, 40, 300, 1_500, 2_000, 8_000, 19_999, 20_000, 200_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": -1}, "epochs=-1 must be from 0 to 100000"),
        ({"batch": 0}, "batch=0 must be from 1 to 65536"),
        ({"lr": 0.0}, r"lr=0\.0 must be above 0"),
        ({"lr": float("nan")}, "lr=nan must be above 0"),
        ({"lr": float("inf")}, "lr=inf must be above 0"),
        ({"backbone_lr": -1.0}, "backbone_lr=-1.0 must be at least 0"),
        ({"layer_decay": 0.0}, r"layer_decay=0\.0 must be in \(0, 1\]"),
        ({"layer_decay": 1.5}, r"layer_decay=1\.5 must be in \(0, 1\]"),
        ({"frozen_stages": -1}, "frozen_stages=-1 must be at least 0"),
        ({"least_rise": 0}, "least_rise=0 must be at least 1"),
        ({"warmup": 1.1}, r"warmup=1\.1 must be in \[0, 1\]"),
        ({"momentum": 1.0}, r"momentum=1\.0 must be in \[0, 1\)"),
        ({"weight_decay": -0.1}, r"weight_decay=-0\.1 must be at least 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1\.0 must be in \[0, 1\)"),
        ({"clip_norm": 0.0}, r"clip_norm=0\.0 must be above 0"),
        ({"ema": 1.0}, r"ema=1\.0 must be in \[0, 1\)"),
        ({"mixup": -1.0}, r"mixup=-1\.0 must be at least 0"),
        ({"cutmix": -1.0}, r"cutmix=-1\.0 must be at least 0"),
        ({"patience": -1}, "patience=-1 must be at least 0"),
        ({"seed": -1}, "seed=-1 must be from 0 to"),
        ({"optimizer": "adamv"}, "unknown optimizer 'adamv'; did you mean .*'adamw'"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; it must be one of sgd, adagrad, rmsprop, adam, adamw"),
        ({"schedule": "cosinus"}, "unknown schedule 'cosinus'; did you mean 'cosine'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change, message):
    with pytest.raises(UsageError, match=message) as caught:
        replace(Recipe(), **change)
    assert "\n" not in str(caught.value)


def test_no_clipping_is_allowed():
    assert Recipe(clip_norm=float("inf")).clip_norm == float("inf")


def test_every_name_has_an_optimizer_and_rates():
    assert set(get_args(OptimizerName)) == set(OPTIMIZERS) == set(STANDARD_RATES)
    assert set(get_args(ScheduleName)) == set(SCHEDULES)


def test_every_field_is_told_in_the_docstring():
    for field in fields(Recipe):
        assert field.name in Recipe.__doc__, field.name


@pytest.mark.parametrize("images", [1_500, 4_000, 8_000])
def test_a_usual_dataset_takes_the_defaults_of_the_fields(images):
    """But for the schedule and the average, which go together, and the rise that a fitted probe needs."""
    usual = Recipe(schedule="constant", ema=0.9999, least_rise=16)
    assert Recipe.for_data(images, 96, classes=20, mirror=True) == usual


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
@pytest.mark.parametrize("method", ["finetune", "scratch"])
def test_every_dataset_gets_a_valid_recipe_that_moves_one_way_with_its_size(method, optimizer):
    recipes = [
        Recipe.for_data(n, 96, classes=10, mirror=True, method=method, optimizer=optimizer, seed=3) for n in SIZES
    ]
    epochs = [recipe.epochs for recipe in recipes]
    assert epochs == sorted(epochs, reverse=True)
    assert [recipe.mixup for recipe in recipes] == [0.0] * 7 + [0.1] * 2  # BiT-HyperRule
    assert {recipe.seed for recipe in recipes} == {3}
    assert all(0 < recipe.backbone_lr <= recipe.lr for recipe in recipes)
    turns = [recipe.augment.rotate_deg for recipe in recipes]
    assert turns == sorted(turns, reverse=True)


def test_the_number_of_steps_stays_within_bounds():
    for images in range(160, 21_000, 331):
        recipe = Recipe.for_data(images, 96, classes=10, mirror=True)
        assert 65 <= recipe.epochs * -(-images // recipe.batch) <= 2_500


def test_rates_go_with_the_batch():
    small, usual = (Recipe.for_data(4_000, 96, classes=10, mirror=True, batch=batch) for batch in (16, 32))
    assert small.lr == pytest.approx(usual.lr / 2**0.5)  # Malladi et al. 2022
    assert small.backbone_lr == pytest.approx(usual.backbone_lr / 2**0.5)
    sgd = Recipe.for_data(4_000, 96, classes=10, mirror=True, optimizer="sgd", batch=256)
    assert sgd.lr == pytest.approx(8 * STANDARD_RATES["sgd"].lr)  # Goyal et al. 2017


def test_scratch_has_rates_of_its_own_and_trains_the_statistics():
    scratch = Recipe.for_data(1_500, 96, classes=20, mirror=True, method="scratch")
    assert (scratch.epochs, scratch.lr, scratch.backbone_lr, scratch.freeze_statistics) == (30, 3e-3, 3e-3, False)


def test_statistics_are_learned_where_there_are_steps_for_it():
    """After n steps 0.9^n of the old ones is left: PyTorch's momentum of 0.1."""
    for epochs, frozen in ((1, True), (7, True), (8, False), (30, False)):
        recipe = Recipe.for_data(96, 32, classes=12, mirror=True, batch=16, epochs=epochs)
        assert recipe.freeze_statistics, "batches of 16 are too small for any"
        recipe = Recipe.for_data(384, 32, classes=12, mirror=True, batch=64, epochs=epochs)
        assert (recipe.epochs, recipe.freeze_statistics) == (epochs, frozen)
        assert (0.9 ** (6 * epochs) > 0.01) == frozen
        assert not Recipe.for_data(96, 32, classes=12, mirror=True, method="scratch", epochs=epochs).freeze_statistics


def test_written_signs_are_neither_mirrored_nor_recoloured():
    for images in (100, 1_500):
        augment = Recipe.for_data(images, 32, classes=10, mirror=False).augment
        assert (augment.flip, augment.colour, augment.grey) == (False, 0.0, 0.0)
        assert augment.shift == 0.125  # 4 of 32 pixels


def test_given_rate_batch_and_optimizer_are_kept():
    recipe = Recipe.for_data(1_500, 96, classes=20, mirror=True, lr=0.04, batch=64, optimizer="sgd")
    assert (recipe.lr, recipe.backbone_lr, recipe.batch, recipe.optimizer) == (0.04, 0.02, 64, "sgd")
    assert not recipe.freeze_statistics
    with pytest.raises(UsageError, match="did you mean 'adam"):
        Recipe.for_data(1_500, 96, classes=20, mirror=True, optimizer="adamm")
    with pytest.raises(UsageError, match="images=0"):
        Recipe.for_data(0, 96, classes=20, mirror=True)


def test_a_wrong_augmentation_is_refused():
    with pytest.raises(UsageError, match=r"augment: grey=1\.5 must be in \[0, 1\]"):
        Augment(grey=1.5)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("resnet20", 3e-3), ("lenet5", 3e-3), ("vit_tiny", 3e-4), ("convnext_tiny", 3e-4), ("timm:convnext_atto", 3e-4)],
)
def test_networks_with_layernorm_alone_take_a_tenth_from_scratch(name, rate):
    with torch.device("meta"):
        network = create_model(name)
    pixels = Pixels(LabelledPixels(np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2), None, None)
    config = ModelConfig(architecture=name, model_args={}, classes=("a", "b"), preprocess=Preprocess(size=(32, 32)))
    lrs = {kind: recipe_for(network, pixels, config, kind, mirror=False).lr for kind in ("scratch", "finetune")}
    assert lrs == pytest.approx({"scratch": rate, "finetune": 1e-3})
    assert recipe_for(network, pixels, config, "scratch", mirror=False, lr=0.01).lr == 0.01
