"""Exported files: the same function, the same pixels, and what they say of themselves."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compress.deployment.export import finish, in_memory
from compress.deployment.parity import compare
from compress.graph.attention import attention
from compress.graph.card import card, weights_sha256
from compress.graph.network import export_network
from compress.graph.preprocessing import network_of
from zoo.create import create_model
from zoo.errors import SlimzooError
from zoo.files.model_directory import ModelConfig
from zoo.files.predictor import TorchPredictor
from zoo.preprocess import Preprocess

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
    session = in_memory(finish(identity, config(preprocess), None)).session  # logits() has pixels of its size as cut
    got = session.run(["logits"], {"pixels": np.stack([image, image])})[0]
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


def test_what_a_file_says_of_itself(model, network):
    """The hash is that of the weights as they are; nothing names a folder of this machine."""
    fit = {
        "verb": "fit",
        "arguments": {"data": "/somewhere/photos"},
        "seed": 3,
        "versions": {"torch": "2"},
        "method": "probe",
        "data": {"name": "/somewhere/photos", "fingerprint": "abc"},
        "metrics": {"before": None, "after": {"test": {"top1": 0.9, "top1_ci": [0.8, 0.95], "n": 40, "correct": "1"}}},
    }
    settings = replace(config(Preprocess(size=(32, 32))), architecture="tf_efficientnet_lite0", lineage=[fit])
    said = card(network, settings)
    assert said["metrics"] == {"test": {"top1": 0.9, "top1_ci": [0.8, 0.95], "n": 40}}
    assert said["lineage"] == [{"verb": "fit", "seed": 3, "versions": {"torch": "2"}, "data": "abc"}]
    assert "/somewhere" not in json.dumps(said)
    cut = {
        "verb": "prune",
        "arguments": {},
        "seed": 0,
        "versions": {},
        "metrics": {"before": None, "after": {"params": 9}},
    }
    assert card(network, replace(settings, lineage=[fit, cut]))["metrics"] == {}  # of another model
    assert said["licence"] == "Apache-2.0"
    scratch = replace(settings, lineage=[fit | {"method": "scratch"}])
    assert card(network, scratch)["licence"] is None
    changed = onnx.ModelProto()
    changed.CopyFrom(network)
    values = onnx.numpy_helper.to_array(changed.graph.initializer[0]).copy()
    values.flat[0] += 1
    changed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, changed.graph.initializer[0].name))
    assert card(changed, settings)["weights_sha256"] != said["weights_sha256"]
    file = finish(network, settings, None)
    assert weights_sha256(network_of(file)) == said["weights_sha256"]


def test_probabilities_are_the_softmax_of_the_logits(network):
    session = onnxruntime.InferenceSession(finish(network, config(Preprocess(size=(32, 32))), None).SerializeToString())
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20, 50, 3), dtype=np.uint8)
    logits, probabilities = session.run(["logits", "probabilities"], {"pixels": pixels})
    np.testing.assert_allclose(probabilities, torch.from_numpy(logits).softmax(1), rtol=1e-5)


def test_flips_are_named(model, network):
    """Two classes changed places in the file: the images of either flip, and no others."""
    settings = config(Preprocess(size=(32, 32)))
    swapped = onnx.ModelProto()
    swapped.CopyFrom(network)
    for tensor in swapped.graph.initializer:
        if tensor.name in ("fc.weight", "fc.bias"):
            values = onnx.numpy_helper.to_array(tensor)[[1, 0, 2]]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    pixels = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    reference = TorchPredictor(model, settings.preprocess, CLASSES)
    record = compare(reference, finish(swapped, settings, None).SerializeToString(), pixels)
    logits = reference.logits(pixels)
    expected = [i for i, best in enumerate(logits.argmax(1)) if best != 2]
    assert record["fresh_process"]
    assert [flip["image"] for flip in record["flips"]] == expected
    assert all({flip["before"], flip["after"]} <= {0, 1, 2} for flip in record["flips"])
    for flip in record["flips"]:
        best, second = np.sort(logits[flip["image"]])[::-1][:2]
        assert flip["margin"] == pytest.approx(best - second, rel=1e-4)
    assert record["top1_agreement"] == pytest.approx(1 - len(expected) / 12)


def test_a_file_that_does_not_open_elsewhere_is_told(model):
    settings = config(Preprocess(size=(32, 32)))
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(SlimzooError, match="does not run in a fresh process"):
        compare(TorchPredictor(model, settings.preprocess, CLASSES), b"not a model", pixels)


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


class BiasedAttention(torch.nn.Module):
    """Attention with a bias for each pair of places, as in BEiT, on 4 x 4 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 24, 2, stride=2)
        self.qkv = torch.nn.Linear(24, 72)
        self.bias = torch.nn.Parameter(torch.randn(1, 3, 16, 16))
        self.head = torch.nn.Linear(24, 3)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        batch, places, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, places, 3, 3, -1).permute(2, 0, 3, 1, 4)
        x = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        return self.head(x.transpose(1, 2).reshape(batch, places, width).mean(1))


def test_attention_with_a_bias_is_exported():
    torch.manual_seed(0)
    model, images = BiasedAttention().eval(), torch.randn(3, 3, 8, 8)
    session = onnxruntime.InferenceSession(export_network(model, (3, 8, 8)).SerializeToString())
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(session.run(None, {"input": images.numpy()})[0], expected, atol=1e-5)


class BlockAttention(BiasedAttention):
    """Within blocks of 4 places: five dimensions, as in NesT; of the first the first alone, if causal."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        batch, places, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, 4, 4, 3, 3, -1).permute(3, 0, 4, 1, 2, 5)
        x = torch.nn.functional.scaled_dot_product_attention(q, k, v, **self.options)
        return self.head(x.permute(0, 2, 3, 1, 4).reshape(batch, places, width)[:, 0])


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.1}, {"attn_mask": torch.eye(4).bool()}], ids=str
)
def test_attention_of_five_dimensions_is_exported(options):
    torch.manual_seed(0)
    model, images = BlockAttention(**options).eval(), torch.randn(3, 3, 8, 8)
    session = onnxruntime.InferenceSession(export_network(model, (3, 8, 8)).SerializeToString())
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(session.run(None, {"input": images.numpy()})[0], expected, atol=1e-5)


def test_attention_written_out_is_torchs():
    q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    mask = torch.rand(5, 7) < 0.7
    mask[:, 0] = True
    for options in ({}, {"attn_mask": mask}, {"attn_mask": torch.randn(5, 7)}, {"is_causal": True, "scale": 0.3}):
        options["enable_gqa"] = True
        wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
        torch.testing.assert_close(attention(q, k, v, **options), wanted)


def test_what_cannot_be_exported_is_told_by_its_cause():
    class Looks(torch.nn.Module):
        def forward(self, x):
            return x[:, 0, 0, :3] if x.sum() > 0 else x[:, 0, 0, 1:4]

    with pytest.raises(SlimzooError, match=r"torch cannot export this model to ONNX: .*(data-dependent|sum|guard)"):
        export_network(Looks(), (3, 8, 8))
