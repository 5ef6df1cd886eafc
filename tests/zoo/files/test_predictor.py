"""One predictor for every file: against the network called by hand, and against errors for what is no model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from zoo.create import create_model
from zoo.errors import SlimzooError, UsageError
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, save_model
from zoo.files.predictor import BATCH, TorchPredictor, fit_size, open_predictor
from zoo.models.lenet import TINY
from zoo.preprocess import Preprocess

CLASSES = tuple("abcdefghij")
GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.25,))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("lenet5", **TINY["lenet5"]).eval()


@pytest.fixture
def directory(tmp_path, model):
    config = ModelConfig(architecture="lenet5", model_args=TINY["lenet5"], classes=CLASSES, preprocess=GREY)
    with new_directory(tmp_path / "model", run={"verb": "test", "arguments": {}}) as work:
        save_model(work, model, config)
    return tmp_path / "model"


def grey_pixels(count, side=28):
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 1), dtype=np.uint8)
    return np.repeat(pixels, 3, axis=3)


def test_directory_answers_as_its_network(directory, model):
    predictor = open_predictor(directory)
    pixels = grey_pixels(5)
    inputs = torch.from_numpy((pixels[..., 0][:, None] / 255 - 0.5) / 0.25).float()
    with torch.no_grad():
        expected = model(inputs).numpy()
    np.testing.assert_allclose(predictor.logits(pixels), expected, rtol=1e-5, atol=1e-5)
    assert predictor.classes == CLASSES
    assert predictor.preprocess == GREY


def test_answers_do_not_depend_on_how_images_are_batched(model):
    predictor = TorchPredictor(model, GREY, CLASSES)
    pixels = grey_pixels(BATCH + 3)
    alone = np.concatenate([predictor.logits(pixels[i : i + 1]) for i in range(len(pixels))])
    np.testing.assert_allclose(predictor.logits(pixels), alone, rtol=1e-5, atol=1e-5)


def test_images_of_another_size_are_resized_first(model):
    predictor = TorchPredictor(model, GREY, CLASSES)
    large = grey_pixels(3, side=41)
    small = np.stack([GREY.resize(image) for image in large])
    assert small.shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(predictor.logits(large), predictor.logits(small))
    np.testing.assert_array_equal(fit_size(large, GREY), small)


def test_no_images_have_a_shape_too():
    assert fit_size(np.empty((0, 9, 9, 3), dtype=np.uint8), GREY).shape == (0, 28, 28, 1)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere does not exist; wanted: a model directory"):
        open_predictor(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"model\.onnx does not exist; `slimzoo export DIR`"):
        open_predictor(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        open_predictor(tmp_path)


def test_onnx_file_of_others_is_refused(tmp_path):
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])] for name in ("pixels", "logits")
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["pixels"], ["logits"])], "g", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UsageError, match=r"foreign\.onnx says nothing of its preprocessing and classes"):
        open_predictor(tmp_path / "foreign.onnx")


def test_damaged_onnx_file_is_named_in_one_line(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(SlimzooError, match=r"bad\.onnx is not an ONNX file, or is damaged") as caught:
        open_predictor(tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)
