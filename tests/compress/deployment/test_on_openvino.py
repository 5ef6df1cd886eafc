"""deploy/on_openvino.py against `Preprocess`, and its answers against those of onnxruntime."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import slimzoo
import torch
from PIL import Image
from torch import nn

import compress.deployment
from compress.deployment.export import export
from zoo.preprocess import Preprocess

pytest.importorskip("openvino")
RULES = {
    "squash": Preprocess(size=(24, 32)),
    "crop": Preprocess(size=(28, 28), resize_to=33, mode="crop", interpolation="bilinear"),
    "pad": Preprocess(size=(30, 20), mode="pad", background=(10, 200, 90), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    "grey": Preprocess(size=(28, 28), mode="pad", mean=(0.5,), std=(0.25,)),
}


@pytest.fixture
def on_openvino(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(compress.deployment.__file__).parent))
    yield importlib.import_module("on_openvino")
    sys.modules.pop("on_openvino")


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("shape", [(40, 61), (20, 17), (28, 28), (300, 200), (5, 190)])
def test_pixels_are_prepared_as_in_training(on_openvino, name, shape):
    rule = RULES[name]
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = on_openvino.prepare(pixels, rule.to_dict())
    np.testing.assert_array_equal(found, rule.normalize(rule.resize(pixels)[None]))


@pytest.mark.parametrize("name", RULES)
def test_answers_are_those_of_onnxruntime(name, tmp_path, slimzoo_deploy):
    rule = RULES[name]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(rule.channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(8, 4))
    example = torch.zeros(1, rule.channels, *rule.size)
    loaded = slimzoo.from_module(network.eval(), example, preprocess=rule, classes=list("abcd"))
    export(loaded, out=tmp_path / "model")
    infer = slimzoo_deploy(tmp_path / "model" / "deploy")
    picture = tmp_path / "picture.png"
    pixels = np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    one, other = (dict(infer.Classifier(runtime=name)(picture)) for name in ("onnxruntime", "openvino"))
    assert one.keys() == other.keys() == set("abcd")
    for label, probability in one.items():
        assert other[label] == pytest.approx(probability, abs=2e-3)  # one level of 255 in some pixels


@pytest.fixture
def slimzoo_deploy(monkeypatch):
    names = ("infer", "image", "on_openvino")

    def load(folder):
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module("infer")

    yield load
    for name in names:
        sys.modules.pop(name, None)
