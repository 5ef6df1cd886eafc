"""Files with operators that a runtime lacks: one line that names them and says what else to try."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from compress.benchmark.harness import bench
from compress.benchmark.runtimes import PROVIDERS, RUNTIMES
from compress.cli import app
from zoo.errors import SlimzooError
from zoo.files.onnx_session import ONNX_RUNTIMES, open_session
from zoo.files.predictor import OnnxPredictor

PASSES = [helper.make_node("Relu", ["input"], ["logits"])]
UNKNOWN = [
    helper.make_node("Conv", ["input", "w"], ["a"]),
    helper.make_node("Swirl", ["a"], ["logits"], domain="our.own"),
]
BFLOAT16 = [
    helper.make_node("Cast", ["input"], ["x16"], to=TensorProto.BFLOAT16),
    helper.make_node("Cast", ["w"], ["w16"], to=TensorProto.BFLOAT16),
    helper.make_node("Conv", ["x16", "w16"], ["y16"], name="patches"),
    helper.make_node("Cast", ["y16"], ["logits"], to=TensorProto.FLOAT),
]
UNPOOLED = [
    helper.make_node("MaxPool", ["input"], ["a", "places"], kernel_shape=[2, 2], strides=[2, 2]),
    helper.make_node("MaxUnpool", ["a", "places"], ["logits"], kernel_shape=[2, 2], strides=[2, 2]),
]


def write(path, nodes, opset=22):
    shape = ["batch", 3, 8, 8]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", None, None, None])
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(nodes, "network", [given], [result], [weight])
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("our.own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("nodes", "runtime", "lacking"),
    [
        (UNKNOWN, "onnxruntime", "our.own:Swirl"),
        (BFLOAT16, "onnxruntime", "Conv"),
        (UNKNOWN, "openvino", "our.own.Swirl"),
        (UNPOOLED, "openvino", "MaxUnpool-22"),
    ],
    ids=["unknown", "bfloat16", "unknown to OpenVINO", "MaxUnpool"],
)
def test_the_operator_and_other_runtimes_are_named(tmp_path, nodes, runtime, lacking):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    file = write(tmp_path / "model.onnx", nodes)
    with pytest.raises(SlimzooError) as error:
        RUNTIMES[runtime](file)
    others = [name for name in ONNX_RUNTIMES if name != runtime]
    assert str(error.value) == (
        f"the network needs {lacking}, which {runtime} lacks, or not for these types; another runtime may have it: "
        f"`slimzoo bench --runtime`, with {', '.join(others[:-1])} or {others[-1]}"
    )
    (row,) = bench([file], runtimes=[runtime], threads=1, rounds=3, seconds_per_round=0.02)["rows"]
    assert row["reason"] == f"not measured: {error.value}"


def test_another_runtime_has_it(tmp_path):
    """What the advice says is worth following: OpenVINO computes bfloat16, onnxruntime unpools."""
    pytest.importorskip("openvino")
    batch = np.full((1, 3, 8, 8), 1.5, np.float32)
    openvino = RUNTIMES["openvino"](write(tmp_path / "bfloat16.onnx", BFLOAT16))
    np.testing.assert_array_equal(openvino.run(batch), np.full((1, 4, 8, 8), 4.5))
    unpooled = RUNTIMES["onnxruntime"](write(tmp_path / "unpooled.onnx", UNPOOLED)).run(batch)
    np.testing.assert_array_equal(unpooled.reshape(3, 4, 2, 4, 2).sum((2, 4)), np.full((3, 4, 4), 1.5))


def test_a_predictor_names_the_file(tmp_path):
    file = write(tmp_path / "model.onnx", UNKNOWN)
    said = r"model\.onnx needs our\.own:Swirl, which onnxruntime lacks"
    with pytest.raises(SlimzooError, match=said):
        OnnxPredictor(file)
    done = CliRunner().invoke(app, ["predict", str(file), "image.png"])
    assert "our.own:Swirl" in str(done.exception)


def test_other_failures_are_one_line_too(tmp_path):
    content = write(tmp_path / "model.onnx", PASSES).read_bytes()
    assert open_session(content, onnxruntime.SessionOptions()).get_inputs()[0].name == "input"
    with pytest.raises(SlimzooError, match=r"^x cannot be opened by onnxruntime: .*INVALID_PROTOBUF.*[^\n]$"):
        open_session(content[: len(content) // 2], onnxruntime.SessionOptions(), what="x")


def test_the_advice_names_runtimes_of_the_benchmark():
    assert (*PROVIDERS, "openvino") == ONNX_RUNTIMES
    assert set(ONNX_RUNTIMES) < set(RUNTIMES)
