"""Few images train the tail of a network alone; everything after takes what comes out as any other model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transfer.evaluation.evaluate import evaluate
from transfer.fitting import methods, tail
from transfer.fitting.step import fit
from transfer.training.recipe import Recipe
from zoo.create import create_model

GIVEN = {"method": "finetune", "size": 64, "epochs": 4, "batch": 16, "seed": 3}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """60 images of three kinds that differ in a patch, in noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 190, (60, 48, 48, 3))
    for kind in (1, 2):
        images[labels == kind, 8 * kind : 8 * kind + 16, 16:32, kind] += 60
    file = tmp_path_factory.mktemp("data") / "photos.npz"
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    return file


@pytest.fixture
def tail_alone(monkeypatch):
    monkeypatch.setattr(methods, "WHOLE_MACS", 0)
    monkeypatch.setitem(methods.METHODS, "finetune", methods.finetune_all)  # whether or not it beats its probe


def test_trunk_is_that_of_pretraining(photos, tmp_path, tail_alone):
    fitted = fit(photos, **GIVEN, out=tmp_path / "m")
    notes = fitted.record["notes"]
    assert notes["tail"] == {"from": "blocks.5", "views": 4}
    assert notes["recipe"]["epochs"] == 4
    pretrained = create_model("tf_efficientnet_lite0", pretrained=True).state_dict()
    kept = {name.removeprefix("body."): tensor for name, tensor in load_file(fitted.out / "model.safetensors").items()}
    early = (*(f"blocks.{i}." for i in range(5)), "conv_stem", "bn1")
    for name, tensor in kept.items():
        if name.startswith(early):
            assert torch.equal(tensor, pretrained[name]), name
    assert not torch.equal(kept["conv_head.weight"], pretrained["conv_head.weight"])
    judge = load_file(fitted.out / "judge.safetensors")
    assert judge
    assert not any(name.removeprefix("body.").startswith(early) for name in judge), "it shares the trunk"
    assert evaluate(fitted.out, photos).evaluation.top1 == pytest.approx(fitted.after.val.top1, abs=1e-6)


def test_all_layers_are_trained_where_that_is_cheap(photos):
    fitted = fit(photos, **{**GIVEN, "epochs": 1})
    assert "tail" not in fitted.record["notes"]


@pytest.mark.parametrize("images", [1, 31, 48, 300, 1000])
def test_without_epochs_there_are_enough_steps(images):
    recipe = Recipe.for_data(images, 64, classes=3, mirror=True)
    passes = tail.passes_of(recipe, images)
    assert passes.steps(images) >= tail.FEWEST_STEPS
    assert passes.epochs == recipe.epochs or replace(passes, epochs=passes.epochs - 1).steps(images) < tail.FEWEST_STEPS
    assert replace(passes, epochs=recipe.epochs) == recipe


def test_share_of_the_way_is_what_the_held_out_images_chose(photos, tail_alone):
    """The model that is written lies as far from its start as its judge does."""
    fitted = fit(photos, **GIVEN)
    assert fitted.record["notes"].get("share", 1.0) in (0.5, 0.75, 1.0)
    assert fitted.record["notes"]["whole"].get("share", 1.0) == fitted.record["notes"].get("share", 1.0)
