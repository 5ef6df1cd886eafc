"""Exported files: the same function, the same pixels, and what they say of themselves."""

import json

import numpy as np
import onnx
import pytest
import torch

from compress.deploy.export import export_network, finish, in_memory
from compress.deploy.parity import compare
from compress.deploy.preprocessing import network_of
from zoo.artifact import ModelConfig
from zoo.predictor import TorchPredictor
from zoo.preprocess import Preprocess
from zoo.registry import create_model

CLASSES = ("cat", "dog", "newt")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = create_model("resnet20", width=8, stages=(1, 1, 1), num_classes=3).eval()
    with torch.no_grad():
        network.fc.weight.mul_(20)
    return network


@pytest.fixture(scope="module")
def network(model):
    return export_network(model, (3, 32, 32))


def config(preprocess: Preprocess) -> ModelConfig:
    return ModelConfig(architecture="resnet20", model_args={}, classes=CLASSES, preprocess=preprocess)


PREPROCESSES = [
    Preprocess(size=(32, 32)),
    Preprocess(size=(32, 32), interpolation="bilinear"),
    Preprocess(size=(32, 32), mode="crop", resize_to=37),
    Preprocess(size=(32, 32), mode="pad", background=(200, 30, 90)),
]


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=lambda p: f"{p.mode}-{p.interpolation}")
@pytest.mark.parametrize("shape", [(32, 32), (47, 61), (200, 90), (20, 33)])
def test_preprocessing_in_the_graph(preprocess, shape):
    """What enters the network against Pillow's resize: within 1 of 255 levels, and 0.01 on average."""
    identity = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["input"], ["logits"])],
            "identity",
            [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])],
            [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(9, 9, 3)).repeat(-(-shape[0] // 9), axis=0).repeat(-(-shape[1] // 9), axis=1)
    image = np.clip(128 + 60 * noise, 0, 255).astype(np.uint8)[: shape[0], : shape[1]]
    got = in_memory(finish(identity, config(preprocess), None)).logits(np.stack([image, image]))
    expected = preprocess.normalize(preprocess.resize(image)[None])[0]
    levels = np.abs(got[1] - expected) * np.array(preprocess.std).reshape(3, 1, 1) * 255
    assert levels.max() <= 1.01
    assert levels.mean() <= 0.01


def test_grey_networks_take_colour_pictures():
    torch.manual_seed(0)
    lenet = create_model("lenet5").eval()
    preprocess = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
    settings = ModelConfig(architecture="lenet5", model_args={}, classes=None, preprocess=preprocess)
    exported = in_memory(finish(export_network(lenet, (1, 28, 28)), settings, None))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    reference = TorchPredictor(lenet, preprocess, None)
    record = compare(reference, exported, pixels)
    assert record["max_abs"] < 0.05 * record["logits_std"]  # one grey level of rounding
    assert record["top1_agreement"] == 1.0


def test_parity_and_metadata(model, network):
    settings = config(Preprocess(size=(32, 32)))
    file = finish(network, settings, {"n": 1})
    record = json.loads(next(p.value for p in file.metadata_props if p.key == "slimzoo"))
    assert record["classes"] == list(CLASSES)
    assert record["parity"] == {"n": 1}
    assert Preprocess.from_dict(record["preprocess"]) == settings.preprocess
    assert not any(tensor.external_data for tensor in file.graph.initializer)
    assert [(o.domain, o.version) for o in file.opset_import if not o.domain] == [("", 20)]
    pixels = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    parity = compare(TorchPredictor(model, settings.preprocess, CLASSES), in_memory(file), pixels)
    assert parity["n"] == 12
    assert parity["max_abs"] <= 1e-4 * parity["logits_std"]
    assert parity["top1_agreement"] == 1.0


def test_parity_sees_a_difference(model, network):
    settings = config(Preprocess(size=(32, 32)))
    other = in_memory(finish(network, config(Preprocess(size=(32, 32), mean=(0.4, 0.4, 0.4))), None))
    pixels = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    parity = compare(TorchPredictor(model, settings.preprocess, CLASSES), other, pixels)
    assert parity["max_abs"] > 1e-3 * parity["logits_std"]


def test_batchnorm_is_folded_and_the_network_comes_out_again(network):
    assert "BatchNormalization" not in {node.op_type for node in network.graph.node}
    whole = finish(network, config(Preprocess(size=(32, 32), mode="crop", resize_to=40)), None)
    again = network_of(whole)
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in network.graph.node]
    onnx.checker.check_model(again, full_check=True)
    assert again.graph.input[0].name == "input"
