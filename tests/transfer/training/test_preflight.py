"""The checklist before training: what is broken on purpose is caught with its cause, and healthy models pass."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from transfer.data.loader import LabelledPixels
from transfer.training.batch import TrainingData
from transfer.training.preflight import Check, Preflight, preflight
from transfer.training.recipe import Recipe
from zoo.classifier import classifier, reset_classifier_
from zoo.create import create_model
from zoo.errors import DataError, SlimzooError
from zoo.models import convnext, efficientnet, googlenet, lenet, resnet, vit
from zoo.preprocess import Preprocess

GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.25,))
SCRATCH = Recipe(lr=3e-3, backbone_lr=3e-3, freeze_statistics=False)


def pictures(preprocess, n=40, classes=10, seed=0):
    """A pattern a class, with noise."""
    side, channels = preprocess.size[0], preprocess.channels
    patterns = np.random.default_rng(7).integers(0, 160, (classes, 4, 4, channels))
    labels = np.random.default_rng(seed).permutation(np.arange(n) % classes)
    enlarged = np.kron(patterns, np.ones((1, -(-side // 4), -(-side // 4), 1)))[:, :side, :side]
    noise = np.random.default_rng(seed).integers(0, 90, (n, side, side, channels))
    return LabelledPixels((enlarged[labels] + noise).astype(np.uint8), labels)


def data_for(preprocess, **how):
    return TrainingData(pictures(preprocess, **how), pictures(preprocess, n=20, seed=1), preprocess)


def fresh(name="lenet5", arguments=lenet.TINY["lenet5"]):
    torch.manual_seed(0)
    model = create_model(name, **arguments)
    reset_classifier_(model, 10, torch.Generator().manual_seed(0))
    return model


def failed(found):
    return {check.name: check.cause for check in found.checks if not check.passed}


def square(side):
    return Preprocess(size=(side, side))


HEALTHY = {
    "lenet5": (lenet.TINY["lenet5"], GREY),
    "resnet20": (resnet.TINY["resnet20"], square(32)),
    "tf_efficientnet_lite0": (efficientnet.TINY["tf_efficientnet_lite0"], square(32)),
    "vit_tiny": (vit.TINY["vit_tiny"], square(vit.TINY["vit_tiny"]["image_size"])),
    "convnext_tiny": (convnext.TINY["convnext_tiny"], square(32)),
    "googlenet": (googlenet.TINY["googlenet"] | {"aux_heads": True}, square(64)),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_models_pass_and_are_left_alone(name):
    arguments, preprocess = HEALTHY[name]
    model = fresh(name, arguments)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    heard = []
    found = preflight(
        model, data_for(preprocess), SCRATCH, begins="fresh", progress=lambda *what: heard.append(what[:3])
    )
    assert found.passed, failed(found)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert heard == [("preflight", done, 18) for done in range(1, 19)]


def test_same_values_every_time():
    found = [preflight(fresh(), data_for(GREY), SCRATCH, begins="fresh") for _ in range(2)]
    assert found[0] == found[1]


def test_it_is_told_to_people_and_to_json():
    found = Preflight(
        (
            Check("first loss", True, 2.31234, "2.3 = ln(10), ±0.5"),
            Check("norm", False, math.inf, "below 1000", "inputs are not normalized"),
        )
    )
    assert found.lines() == [
        "ok    first loss  2.31, wanted 2.3 = ln(10), ±0.5",
        "WARN  norm        inf, wanted below 1000",
        "      likely cause: inputs are not normalized",
    ]
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["passed"] is False
    assert record["checks"][0] == {
        "name": "first loss",
        "passed": True,
        "value": 2.31234,
        "wanted": "2.3 = ln(10), ±0.5",
        "cause": "",
    }
    assert record["checks"][1]["value"] is None


def test_first_loss_is_that_of_an_undecided_classifier():
    """Zero weights: exactly ln(10), and gradients of the backbone that are zero at the first step only."""
    model = fresh()
    nn.init.zeros_(classifier(model).weight)
    found = preflight(model, data_for(GREY), SCRATCH, begins="fresh")
    assert found.passed, failed(found)
    assert found.checks[3].name == "first loss"
    assert found.checks[3].value == pytest.approx(math.log(10), rel=1e-5)


# broken on purpose


def test_large_first_weights():
    model = fresh()
    with torch.no_grad():
        classifier(model).weight.mul_(1000)
    causes = failed(preflight(model, data_for(GREY), SCRATCH, begins="fresh"))
    assert "first weights, or the features before it, are too large" in causes["first loss"]


def test_classifier_that_knows_already():
    model, data = fresh(), data_for(GREY)
    trained = train(model, data)
    causes = failed(preflight(trained, data, SCRATCH, begins="fresh"))
    assert list(causes) == ["first loss"]
    assert "not fresh" in causes["first loss"]


def train(model, data, steps=60):
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    x, y = torch.from_numpy(data.preprocess.normalize(data.train.pixels)), torch.from_numpy(data.train.labels)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def test_a_fitted_probe_passes_and_one_of_other_classes_does_not():
    data = replace(data_for(GREY), val=pictures(GREY, n=64, seed=1))
    trained = train(fresh(), data)
    recipe = replace(SCRATCH, lr=1e-3, backbone_lr=5e-4)
    assert preflight(trained, data, recipe, begins="probe").passed
    turned = [
        LabelledPixels(part.pixels, (part.labels + 3) % 10) for part in (data.train, data.val)
    ]  # as if the classes were sorted otherwise
    causes = failed(preflight(trained, TrainingData(*turned, GREY), recipe, begins="probe"))
    assert "classes are in another order" in causes["first loss"]
    assert "classes are in another order" in causes["majority baseline"]


class Dead(nn.Module):
    """Features that are zero whatever the image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x) - 100).mean(dim=(2, 3)))


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.deep = nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.deep(torch.relu(self.conv(x)).detach())).mean(dim=(2, 3)))


class Around(nn.Module):
    """LeNet with something done to its inputs or outputs."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.inner = fresh()
        self.before, self.after = before or nn.Identity(), after or nn.Identity()

    def forward(self, x):
        return self.after(self.inner(self.before(x)))


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


def test_dead_units():
    causes = failed(preflight(Dead(), data_for(GREY), SCRATCH, begins="fresh"))
    assert "conv.weight, conv.bias" in causes["parameters without gradient"]
    assert "dead units" in causes["parameters without gradient"]
    assert "does not depend on the image" in causes["same with the images"]


def test_detached_layers():
    causes = failed(preflight(Detached(), data_for(GREY), SCRATCH, begins="fresh"))
    assert causes["parameters without gradient"].startswith("conv.weight, conv.bias: cut off from the loss")


def test_of_a_network_trained_in_part_that_part_is_tried():
    part = Detached(), data_for(GREY)
    causes = failed(preflight(fresh(), data_for(GREY), SCRATCH, begins="fresh", part=part))
    assert set(causes) == {"parameters without gradient"}
    swapped = preflight(Detached(), data_for(GREY), SCRATCH, begins="fresh", part=(fresh(), data_for(GREY)))
    assert "parameters without gradient" not in failed(swapped)


def test_gradients_of_frozen_stages_are_not_asked_for():
    model = Detached()
    found = preflight(model, data_for(GREY), replace(SCRATCH, frozen_stages=1), begins="fresh")
    assert "parameters without gradient" not in failed(found)


def test_blank_images():
    data = data_for(GREY)
    blank = TrainingData(replace(data.train, pixels=np.full_like(data.train.pixels, 200)), None, GREY)
    causes = failed(preflight(fresh(), blank, SCRATCH, begins="fresh"))
    assert "blank or all alike" in causes["deviation of the inputs"]
    assert "does not depend on the image" in causes["same with the images"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rates_that_are_too_high(optimizer):
    recipe = replace(SCRATCH, optimizer=optimizer, lr=30.0, backbone_lr=30.0, clip_norm=math.inf)
    causes = failed(preflight(fresh(), data_for(GREY), recipe, begins="fresh"))
    assert "too high (lr=30, backbone_lr=30): try a tenth" in causes["loss of an overfitted batch"]


def test_rates_that_are_too_low():
    recipe = replace(SCRATCH, lr=1e-8, backbone_lr=1e-8)
    causes = failed(preflight(fresh(), data_for(GREY), recipe, begins="fresh"))
    assert "too low (lr=1e-08)" in causes["loss of an overfitted batch"]


def test_pixels_that_are_not_normalized():
    """Values 255 times too large, as of a network that wants 0..255 given one that wants 0..1."""
    data = data_for(replace(GREY, mean=(0.0,), std=(1 / 255,)))
    causes = failed(preflight(fresh(), data, SCRATCH, begins="fresh"))
    assert "0..255 where 0..1" in causes["mean of the inputs"]
    assert "0..255 where 0..1" in causes["deviation of the inputs"]


def test_pixels_divided_twice():
    data = data_for(replace(GREY, mean=(0.0,), std=(255.0,)))
    causes = failed(preflight(fresh(), data, SCRATCH, begins="fresh"))
    assert "divided by 255 twice" in causes["deviation of the inputs"]


def test_softmax_before_the_loss():
    causes = failed(preflight(Around(after=nn.Softmax(1)), data_for(GREY), SCRATCH, begins="fresh"))
    assert "the model ends in a softmax" in causes["outputs are logits"]


def test_gradients_that_explode():
    class Scale(nn.Module):
        def forward(self, x):
            return x * 1e5

    causes = failed(preflight(Around(before=Scale()), data_for(GREY), SCRATCH, begins="fresh"))
    assert "first weights are too large" in causes["norm of the first gradient"]


def test_class_without_an_image_and_one_with_nearly_all():
    data = data_for(GREY)
    kept = data.train.labels != 3
    without = TrainingData(LabelledPixels(data.train.pixels[kept], data.train.labels[kept]), None, GREY)
    causes = failed(preflight(fresh(), without, SCRATCH, begins="fresh"))
    assert "without a training image" in causes["classes without training images"]
    labels = np.zeros(40, dtype=np.int64)
    labels[:2] = 1
    causes = failed(
        preflight(fresh(), replace(data, train=replace(data.train, labels=labels)), SCRATCH, begins="fresh")
    )
    assert "nearly all images are of one class" in causes["majority baseline"]


@pytest.mark.parametrize("wrong", [-1, 10])
@pytest.mark.parametrize("part", ["train", "val"])
def test_labels_out_of_range_are_hopeless(wrong, part):
    data = data_for(GREY)
    labels = getattr(data, part).labels.copy()
    labels[2] = wrong
    data = replace(data, **{part: replace(getattr(data, part), labels=labels)})
    with pytest.raises(DataError, match=r"labels go from .* and the classifier has outputs 0 to 9") as caught:
        preflight(fresh(), data, SCRATCH, begins="fresh")
    assert str(wrong) in str(caught.value)


def test_what_is_not_finite_is_hopeless():
    model = fresh()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = math.nan
    with pytest.raises(SlimzooError, match="first loss is nan before any training"):
        preflight(model, data_for(GREY), SCRATCH, begins="fresh")


def test_no_gradient_anywhere_is_hopeless():
    with pytest.raises(SlimzooError, match="output is detached from its weights"):
        preflight(Around(after=Detach()), data_for(GREY), SCRATCH, begins="fresh")


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_image_is_enough_to_look_at(name, count):
    arguments, preprocess = HEALTHY[name]
    data = TrainingData(pictures(preprocess, n=count), None, preprocess)
    found = preflight(fresh(name, arguments), data, SCRATCH, begins="fresh")
    assert "classes without training images" in failed(found)
    assert len(found.checks) == 10
